#include "kernels/mamba2/mamba2.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/arguments/sequence_groups.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/mamba2/bodies.h"
#include "kernels/mamba2/reference.h"
#include "kernels/paged_attention/state_slots.h"

namespace lathe::kernels {
namespace {

constexpr int64_t most_mamba2_workspace = int64_t{256} << 20;

void check_mamba2_heads(const char* operation, const Mamba2Heads& heads) {
  const auto fits = [](int64_t dim) { return dim >= 8 && dim <= most_mamba2_dim && dim % 8 == 0; };
  if (heads.groups < 1 || heads.heads < 1 || heads.heads % heads.groups != 0)
    throw ShapeError(std::string(operation) + ": expected heads that are a multiple of the groups, found " +
                     std::to_string(heads.heads) + " and " + std::to_string(heads.groups));
  if (!fits(heads.head_dim) || !fits(heads.state_size))
    throw ShapeError(std::string(operation) +
                     ": expected a head dimension and a state size that are multiples of 8 up to " +
                     std::to_string(most_mamba2_dim) + ", found " + std::to_string(heads.head_dim) + " and " +
                     std::to_string(heads.state_size));
}

void check_mamba2_rows(const char* operation, const char* argument, const Tensor& tensor, const Shape& shape,
                       const Tensor& xbc) {
  expect(operation, argument, tensor).shape(shape).dtype(xbc.dtype()).rows_contiguous().device(xbc.device());
}

DType mamba2_wide(const Tensor& xbc) { return xbc.dtype() == DType::f64 ? DType::f64 : DType::f32; }

void check_mamba2(const char* operation, const Mamba2& inputs) {
  const Tensor& xbc = inputs.xbc;
  check_mamba2_heads(operation, inputs.heads);
  expect(operation, "xbc", xbc).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "xbc", xbc);
  expect(operation, "xbc", xbc).shape({xbc.dim(0), inputs.heads.xbc_columns()});
  check_mamba2_rows(operation, "dt", inputs.dt, {xbc.dim(0), inputs.heads.heads}, xbc);
  const auto check_weight = [&](const char* argument, const Tensor& weight) {
    expect(operation, argument, weight)
        .shape({inputs.heads.heads})
        .dtype({xbc.dtype(), mamba2_wide(xbc)})
        .contiguous()
        .device(xbc.device());
  };
  check_weight("A_log", inputs.A_log);
  check_weight("D", inputs.D);
  check_weight("dt_bias", inputs.dt_bias);
  if (!(inputs.dt_min >= 0) || !(inputs.dt_max >= inputs.dt_min))
    throw ShapeError(std::string(operation) + ": expected 0 ≤ dt_min ≤ dt_max, found " + std::to_string(inputs.dt_min) +
                     " and " + std::to_string(inputs.dt_max));
}

Mamba2Inputs mamba2_inputs(const Mamba2& inputs) {
  const auto weight = [](const Tensor& tensor) { return Mamba2Weight{tensor.raw(), tensor.dtype() == DType::f32}; };
  return {.dtype = inputs.xbc.dtype(),
          .xbc = matrix_of(inputs.xbc),
          .dt = matrix_of(inputs.dt),
          .A_log = weight(inputs.A_log),
          .D = weight(inputs.D),
          .dt_bias = weight(inputs.dt_bias),
          .heads = inputs.heads.heads,
          .groups = inputs.heads.groups,
          .head_dim = inputs.heads.head_dim,
          .state_size = inputs.heads.state_size,
          .dt_min = inputs.dt_min,
          .dt_max = inputs.dt_max};
}

// pass(begin, end) for the parts of every head's columns, of sequences that have `rows` rows together.
template <class Pass>
void run_mamba2_parts(const Mamba2Inputs& in, int64_t sequences, int64_t rows, const Pass& pass) {
  const int64_t work = rows / std::max<int64_t>(1, sequences) * std::min(in.head_dim, mamba2_columns) * in.state_size;
  parallel_for(sequences * in.heads * mamba2_column_parts(in.head_dim), row_grain(work), pass);
}

void run_mamba2_forward(const Mamba2ForwardArgs& args, int64_t rows, Device device) {
  if (device.kind != DeviceKind::cpu)
    return with_device(device, [&]<DeviceKind kind>() { mamba2_forward_all<kind>(args); });
  run_mamba2_parts(args, args.sequences, rows, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { mamba2_forward_parts<isa>(args, begin, end); });
  });
}

// The weights' gradients += for each sequence the sum over its chunks.
void sum_mamba2_chunks(const Mamba2BackwardArgs& args) {
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t begin = args.cu_seqlens[s], rows = args.cu_seqlens[s + 1] - begin;
    const int64_t first = first_token_chunk(s, begin), end = first + (rows + token_chunk - 1) / token_chunk;
    for (int which = 0; which < 3; ++which) {
      for (int64_t head = 0; args.grad_weights[which] != nullptr && head < args.heads; ++head) {
        float sum = 0;
        for (int64_t chunk = first; chunk < end; ++chunk)
          sum += args.work.chunk_sums[(chunk * args.heads + head) * 3 + which];
        args.grad_weights[which][head] += sum;
      }
    }
  }
}

void run_mamba2_backward_on_cpu(const Mamba2BackwardArgs& args) {
  run_mamba2_parts(args, args.sequences, args.rows, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { mamba2_grad_state_parts<isa>(args, begin, end); });
  });
  parallel_for(token_chunk_count(args.sequences, args.rows) * args.parts(), 1, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { mamba2_chunk_parts<isa>(args, begin, end); });
  });
  parallel_for(args.rows, row_grain(2 * args.parts() * args.state_size), [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { mamba2_grad_rows<isa>(args, begin, end); });
  });
  sum_mamba2_chunks(args);
}

void run_mamba2_backward(const Mamba2BackwardArgs& args, Device device) {
  Mamba2ForwardArgs first{args};
  first.bounds = args.cu_seqlens;
  first.sequences = args.sequences;
  first.chunk_states = args.work.chunk_states;
  run_mamba2_forward(first, args.rows, device);
  if (device.kind == DeviceKind::cpu) return run_mamba2_backward_on_cpu(args);
  with_device(device, [&]<DeviceKind kind>() {
    mamba2_grad_state_all<kind>(args);
    mamba2_chunks_all<kind>(args);
    mamba2_grad_rows_all<kind>(args);
  });
}

// The parts of one allocation, in the order of Mamba2Workspace. Sizes in floats are multiples of 4, as rows are read as
// vectors.
Mamba2Workspace mamba2_workspace(float* memory, const Mamba2Heads& heads, int64_t sequences, int64_t rows,
                                 int64_t& floats) {
  floats = 0;
  const auto take = [&](int64_t count) {
    float* const part = memory != nullptr ? memory + floats : nullptr;
    floats += (count + 3) / 4 * 4;
    return part;
  };
  const int64_t chunks = token_chunk_count(sequences, rows);
  const int64_t parts = heads.groups * mamba2_parts_of_group(heads.heads / heads.groups);
  Mamba2Workspace work{};
  work.chunk_states = take(chunks * heads.heads * heads.state_size * heads.head_dim);
  work.chunk_grad_states = take(chunks * heads.heads * heads.state_size * heads.head_dim);
  work.grad_b = take(rows * parts * heads.state_size);
  work.grad_c = take(rows * parts * heads.state_size);
  work.chunk_sums = take(3 * chunks * heads.heads);
  return work;
}
int64_t mamba2_workspace_floats(const Mamba2Heads& heads, int64_t sequences, int64_t rows) {
  int64_t floats = 0;
  mamba2_workspace(nullptr, heads, sequences, rows, floats);
  return floats;
}

float* mamba2_weight_gradient(const char* operation, const char* argument, const Tensor& gradient,
                              const Mamba2& inputs) {
  if (!gradient.defined()) return nullptr;
  expect(operation, argument, gradient)
      .shape({inputs.heads.heads})
      .dtype(mamba2_wide(inputs.xbc))
      .contiguous()
      .device(inputs.xbc.device());
  return gradient.dtype() == DType::f32 ? gradient.data<float>() : nullptr;
}

}  // namespace

void mamba2_forward(const Tensor& out, const Mamba2& inputs, const Tensor& cu_seqlens) {
  const char* operation = "mamba2_forward";
  check_mamba2(operation, inputs);
  const Tensor& xbc = inputs.xbc;
  check_mamba2_rows(operation, "out", out, {xbc.dim(0), inputs.heads.out_columns()}, xbc);
  expect_cu_seqlens(operation, cu_seqlens, xbc.dim(0));
  if (xbc.dim(0) == 0) return;
  if (xbc.dtype() == DType::f64) return reference::mamba2_forward(out, inputs, cu_seqlens);
  Mamba2ForwardArgs args{mamba2_inputs(inputs)};
  args.out = matrix_of(out);
  args.bounds = cu_seqlens.data<int32_t>();
  args.sequences = cu_seqlens.dim(0) - 1;
  run_mamba2_forward(args, xbc.dim(0), xbc.device());
}

int64_t mamba2_workspace_bytes(const Mamba2Heads& heads, int64_t tokens) {
  return 4 * mamba2_workspace_floats(heads, 1, tokens);
}

void mamba2_backward(const Tensor& grad_xbc, const Tensor& grad_dt, const Tensor& grad_A_log, const Tensor& grad_D,
                     const Tensor& grad_dt_bias, const Tensor& grad_out, const Mamba2& inputs,
                     const Tensor& cu_seqlens) {
  const char* operation = "mamba2_backward";
  check_mamba2(operation, inputs);
  const Tensor& xbc = inputs.xbc;
  check_mamba2_rows(operation, "grad_xbc", grad_xbc, xbc.shape(), xbc);
  check_mamba2_rows(operation, "grad_dt", grad_dt, inputs.dt.shape(), xbc);
  check_mamba2_rows(operation, "grad_out", grad_out, {xbc.dim(0), inputs.heads.out_columns()}, xbc);
  float* const of_A_log = mamba2_weight_gradient(operation, "grad_A_log", grad_A_log, inputs);
  float* const of_D = mamba2_weight_gradient(operation, "grad_D", grad_D, inputs);
  float* const of_dt_bias = mamba2_weight_gradient(operation, "grad_dt_bias", grad_dt_bias, inputs);
  expect_cu_seqlens(operation, cu_seqlens, xbc.dim(0));
  if (xbc.dim(0) == 0) return;
  if (xbc.dtype() == DType::f64)
    return reference::mamba2_backward(grad_xbc, grad_dt, grad_A_log, grad_D, grad_dt_bias, grad_out, inputs,
                                      cu_seqlens);
  const auto bytes = [&](int64_t sequences, int64_t rows) {
    return 4 * mamba2_workspace_floats(inputs.heads, sequences, rows);
  };
  for_each_sequence_group(cu_seqlens.span<int32_t>(), most_mamba2_workspace, bytes, [&](const SequenceGroup& group) {
    const auto rows = [&](const Tensor& tensor) { return tensor.slice(0, group.begin_row, group.end_row); };
    Mamba2 own = inputs;
    own.xbc = rows(xbc);
    own.dt = rows(inputs.dt);
    Mamba2BackwardArgs args{mamba2_inputs(own)};
    args.grad_out = matrix_of(rows(grad_out));
    args.grad_xbc = matrix_of(rows(grad_xbc));
    args.grad_dt = matrix_of(rows(grad_dt));
    args.grad_weights[0] = of_A_log;
    args.grad_weights[1] = of_D;
    args.grad_weights[2] = of_dt_bias;
    args.cu_seqlens = group.bounds.data();
    args.sequences = group.sequences();
    args.rows = group.rows();
    int64_t floats = mamba2_workspace_floats(inputs.heads, args.sequences, args.rows);
    const Tensor memory = Tensor::empty({floats}, DType::f32, xbc.device(), MemoryTag::workspace);
    args.work = mamba2_workspace(memory.data<float>(), inputs.heads, args.sequences, args.rows, floats);
    run_mamba2_backward(args, xbc.device());
  });
}

void mamba2_step(const Tensor& out, const Tensor& states, const Mamba2& inputs, const PagedBatch& batch) {
  const char* operation = "mamba2_step";
  check_mamba2(operation, inputs);
  const Tensor& xbc = inputs.xbc;
  const Mamba2Heads& heads = inputs.heads;
  expect(operation, "xbc", xbc).shape({batch.tokens(), heads.xbc_columns()}).device(batch.pages().device);
  check_mamba2_rows(operation, "out", out, {xbc.dim(0), heads.out_columns()}, xbc);
  expect(operation, "states", states).rank(4).dtype(mamba2_wide(xbc)).contiguous().device(xbc.device());
  expect(operation, "states", states).shape({states.dim(0), heads.heads, heads.state_size, heads.head_dim});
  expect_state_slots(operation, batch, states.dim(0));
  if (xbc.dim(0) == 0) return;
  if (xbc.dtype() == DType::f64) return reference::mamba2_step(out, states, inputs, batch);
  const PagedBatch::OnDevice there = batch.on_device();
  Mamba2ForwardArgs args{mamba2_inputs(inputs)};
  args.out = matrix_of(out);
  args.bounds = there.bounds;
  args.sequences = batch.sequences();
  args.states = states.data<float>();
  args.contexts = there.contexts;
  args.slots = there.state_slots;
  run_mamba2_forward(args, xbc.dim(0), xbc.device());
}

}  // namespace lathe::kernels
