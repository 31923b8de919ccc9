#include "kernels/gated_delta/gated_delta.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/arguments/sequence_groups.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/gated_delta/bodies.h"
#include "kernels/gated_delta/reference.h"
#include "kernels/paged_attention/state_slots.h"

namespace lathe::kernels {
namespace {

constexpr auto floating = {DType::f32, DType::bf16, DType::f16, DType::f64};
constexpr int64_t most_workspace_bytes = int64_t{256} << 20;

void check_heads(const char* operation, const GatedDeltaHeads& heads) {
  const auto fits = [](int64_t dim) { return dim >= 8 && dim <= most_gated_delta_dim && dim % 8 == 0; };
  if (heads.key_heads < 1 || heads.value_heads < 1 || heads.value_heads % heads.key_heads != 0)
    throw ShapeError(std::string(operation) + ": expected value heads that are a multiple of the key heads, found " +
                     std::to_string(heads.value_heads) + " and " + std::to_string(heads.key_heads));
  if (!fits(heads.key_dim) || !fits(heads.value_dim))
    throw ShapeError(std::string(operation) + ": expected key and value dimensions that are multiples of 8 up to " +
                     std::to_string(most_gated_delta_dim) + ", found " + std::to_string(heads.key_dim) + " and " +
                     std::to_string(heads.value_dim));
}

void check_rows(const char* operation, const char* argument, const Tensor& tensor, const Shape& shape,
                const Tensor& qkv) {
  expect(operation, argument, tensor).shape(shape).dtype(qkv.dtype()).rows_contiguous().device(qkv.device());
}

DType wide(const Tensor& qkv) { return qkv.dtype() == DType::f64 ? DType::f64 : DType::f32; }

void check(const char* operation, const GatedDelta& inputs) {
  const Tensor& qkv = inputs.qkv;
  check_heads(operation, inputs.heads);
  expect(operation, "qkv", qkv).rank(2).dtype(floating).rows_contiguous();
  expect_body(operation, "qkv", qkv);
  expect(operation, "qkv", qkv).shape({qkv.dim(0), inputs.heads.qkv_columns()});
  check_rows(operation, "a", inputs.a, {qkv.dim(0), inputs.heads.value_heads}, qkv);
  check_rows(operation, "b", inputs.b, {qkv.dim(0), inputs.heads.value_heads}, qkv);
  const auto check_weight = [&](const char* argument, const Tensor& weight) {
    expect(operation, argument, weight)
        .shape({inputs.heads.value_heads})
        .dtype({qkv.dtype(), wide(qkv)})
        .contiguous()
        .device(qkv.device());
  };
  check_weight("A_log", inputs.A_log);
  check_weight("dt_bias", inputs.dt_bias);
}

GatedDeltaInputs inputs_of(const GatedDelta& inputs) {
  return {.dtype = inputs.qkv.dtype(),
          .qkv = matrix_of(inputs.qkv),
          .a = matrix_of(inputs.a),
          .b = matrix_of(inputs.b),
          .A_log = inputs.A_log.raw(),
          .dt_bias = inputs.dt_bias.raw(),
          .wide_A_log = inputs.A_log.dtype() == DType::f32,
          .wide_dt_bias = inputs.dt_bias.dtype() == DType::f32,
          .key_heads = inputs.heads.key_heads,
          .value_heads = inputs.heads.value_heads,
          .key_dim = inputs.heads.key_dim,
          .value_dim = inputs.heads.value_dim};
}

// pass(begin, end) for the parts of `dim` of every value head of so many groups, which have `rows` rows together.
template <class Pass>
void run_parts(const GatedDeltaInputs& in, int64_t groups, int64_t rows, int64_t dim, const Pass& pass) {
  const int64_t work = rows / std::max<int64_t>(1, groups) * std::min(dim, gated_delta_part) * in.key_dim;
  parallel_for(groups * in.value_heads * gated_delta_parts(dim), row_grain(work), pass);
}

void forward(const GatedDeltaForwardArgs& args, int64_t rows, Device device) {
  if (device.kind != DeviceKind::cpu)
    return with_device(device, [&]<DeviceKind kind>() { gated_delta_forward_all<kind>(args); });
  run_parts(args, args.sequences, rows, args.value_dim, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { gated_delta_forward_parts<isa>(args, begin, end); });
  });
}

// gradient += for each sequence the sum of its chunks' `which`.
void sum_over_chunks(const GatedDeltaBackwardArgs& args, float* gradient, int which) {
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t begin = args.cu_seqlens[s], rows = args.cu_seqlens[s + 1] - begin;
    const int64_t first = first_token_chunk(s, begin);
    const int64_t end = first + (rows + token_chunk - 1) / token_chunk;
    for (int64_t head = 0; head < args.value_heads; ++head) {
      float sum = 0;
      for (int64_t chunk = first; chunk < end; ++chunk)
        sum += args.work.chunk_sums[(chunk * args.value_heads + head) * 2 + which];
      gradient[head] += sum;
    }
  }
}

void backward_on_cpu(const GatedDeltaBackwardArgs& args) {
  run_parts(args, args.sequences, args.rows, args.value_dim, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { gated_delta_grad_state_parts<isa>(args, begin, end); });
  });
  const int64_t chunks = token_chunk_count(args.sequences, args.rows);
  run_parts(args, chunks, args.rows, args.key_dim, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { gated_delta_chunk_parts<isa>(args, begin, end); });
  });
  parallel_for(chunks * args.value_heads, 1, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { gated_delta_decay_heads<isa>(args, begin, end); });
  });
  const int64_t columns = 4 * args.value_heads * (args.key_dim + args.value_dim);
  parallel_for(args.rows, row_grain(columns), [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { gated_delta_grad_rows<isa>(args, begin, end); });
  });
  if (args.grad_A_log != nullptr) sum_over_chunks(args, args.grad_A_log, 0);
  if (args.grad_dt_bias != nullptr) sum_over_chunks(args, args.grad_dt_bias, 1);
}

void backward(const GatedDeltaBackwardArgs& args, Device device) {
  GatedDeltaForwardArgs first{args};
  first.bounds = args.cu_seqlens;
  first.sequences = args.sequences;
  first.missing = args.work.missing;
  first.chunk_states = args.work.chunk_states;
  forward(first, args.rows, device);
  if (device.kind == DeviceKind::cpu) return backward_on_cpu(args);
  with_device(device, [&]<DeviceKind kind>() {
    gated_delta_grad_state_all<kind>(args);
    gated_delta_chunks_all<kind>(args);
    gated_delta_decay_all<kind>(args);
    gated_delta_grad_rows_all<kind>(args);
  });
}

// The parts of one allocation, in the order of GatedDeltaWorkspace. Sizes in floats are multiples of 4 where rows are
// read as vectors.
GatedDeltaWorkspace workspace_in(float* memory, const GatedDeltaHeads& heads, int64_t sequences, int64_t rows,
                                 int64_t& floats) {
  const int64_t chunks = token_chunk_count(sequences, rows);
  floats = 0;
  const auto take = [&](int64_t count) {
    float* const part = memory != nullptr ? memory + floats : nullptr;
    floats += (count + 3) / 4 * 4;
    return part;
  };
  const int64_t keys = heads.value_heads * heads.key_dim, values = heads.value_heads * heads.value_dim;
  GatedDeltaWorkspace work{};
  work.missing = take(rows * values);
  work.grad_delta = take(rows * values);
  work.grad_q = take(rows * keys);
  work.grad_k = take(rows * keys);
  work.chunk_states = take(chunks * keys * heads.value_dim);
  work.chunk_grad_states = take(chunks * keys * heads.value_dim);
  work.of_state = take(rows * keys / 8);
  work.of_grad_state = take(rows * keys / 8);
  work.bounds_product = take(chunks * keys);
  work.chunk_sums = take(2 * chunks * heads.value_heads);
  return work;
}
int64_t workspace_floats(const GatedDeltaHeads& heads, int64_t sequences, int64_t rows) {
  int64_t floats = 0;
  workspace_in(nullptr, heads, sequences, rows, floats);
  return floats;
}

void check_gradient(const char* operation, const char* argument, const Tensor& gradient, const GatedDelta& inputs) {
  if (!gradient.defined()) return;
  expect(operation, argument, gradient)
      .shape({inputs.heads.value_heads})
      .dtype(wide(inputs.qkv))
      .contiguous()
      .device(inputs.qkv.device());
}

}  // namespace

void gated_delta_forward(const Tensor& out, const GatedDelta& inputs, const Tensor& cu_seqlens) {
  const char* operation = "gated_delta_forward";
  check(operation, inputs);
  const Tensor& qkv = inputs.qkv;
  check_rows(operation, "out", out, {qkv.dim(0), inputs.heads.out_columns()}, qkv);
  expect_cu_seqlens(operation, cu_seqlens, qkv.dim(0));
  if (qkv.dim(0) == 0) return;
  if (qkv.dtype() == DType::f64) return reference::gated_delta_forward(out, inputs, cu_seqlens);
  GatedDeltaForwardArgs args{inputs_of(inputs)};
  args.out = matrix_of(out);
  args.bounds = cu_seqlens.data<int32_t>();
  args.sequences = cu_seqlens.dim(0) - 1;
  forward(args, qkv.dim(0), qkv.device());
}

int64_t gated_delta_workspace_bytes(const GatedDeltaHeads& heads, int64_t tokens) {
  return 4 * workspace_floats(heads, 1, tokens);
}

void gated_delta_backward(const Tensor& grad_qkv, const Tensor& grad_a, const Tensor& grad_b, const Tensor& grad_A_log,
                          const Tensor& grad_dt_bias, const Tensor& grad_out, const GatedDelta& inputs,
                          const Tensor& cu_seqlens) {
  const char* operation = "gated_delta_backward";
  check(operation, inputs);
  const Tensor& qkv = inputs.qkv;
  check_rows(operation, "grad_qkv", grad_qkv, qkv.shape(), qkv);
  check_rows(operation, "grad_a", grad_a, inputs.a.shape(), qkv);
  check_rows(operation, "grad_b", grad_b, inputs.b.shape(), qkv);
  check_rows(operation, "grad_out", grad_out, {qkv.dim(0), inputs.heads.out_columns()}, qkv);
  check_gradient(operation, "grad_A_log", grad_A_log, inputs);
  check_gradient(operation, "grad_dt_bias", grad_dt_bias, inputs);
  expect_cu_seqlens(operation, cu_seqlens, qkv.dim(0));
  if (qkv.dim(0) == 0) return;
  if (qkv.dtype() == DType::f64)
    return reference::gated_delta_backward(grad_qkv, grad_a, grad_b, grad_A_log, grad_dt_bias, grad_out, inputs,
                                           cu_seqlens);

  const auto bytes = [&](int64_t sequences, int64_t rows) {
    return 4 * workspace_floats(inputs.heads, sequences, rows);
  };
  for_each_sequence_group(cu_seqlens.span<int32_t>(), most_workspace_bytes, bytes, [&](const SequenceGroup& group) {
    const auto rows = [&](const Tensor& tensor) { return tensor.slice(0, group.begin_row, group.end_row); };
    GatedDeltaBackwardArgs args{
        inputs_of({rows(qkv), rows(inputs.a), rows(inputs.b), inputs.A_log, inputs.dt_bias, inputs.heads})};
    args.grad_out = matrix_of(rows(grad_out));
    args.grad_qkv = matrix_of(rows(grad_qkv));
    args.grad_a = matrix_of(rows(grad_a));
    args.grad_b = matrix_of(rows(grad_b));
    args.grad_A_log = grad_A_log.defined() ? grad_A_log.data<float>() : nullptr;
    args.grad_dt_bias = grad_dt_bias.defined() ? grad_dt_bias.data<float>() : nullptr;
    args.cu_seqlens = group.bounds.data();
    args.sequences = group.sequences();
    args.rows = group.rows();
    int64_t floats = workspace_floats(inputs.heads, args.sequences, args.rows);
    const Tensor memory = Tensor::empty({floats}, DType::f32, qkv.device(), MemoryTag::workspace);
    args.work = workspace_in(memory.data<float>(), inputs.heads, args.sequences, args.rows, floats);
    backward(args, qkv.device());
  });
}

void gated_delta_step(const Tensor& out, const Tensor& states, const GatedDelta& inputs, const PagedBatch& batch) {
  const char* operation = "gated_delta_step";
  check(operation, inputs);
  const Tensor& qkv = inputs.qkv;
  const GatedDeltaHeads& heads = inputs.heads;
  expect(operation, "qkv", qkv).shape({batch.tokens(), heads.qkv_columns()}).device(batch.pages().device);
  check_rows(operation, "out", out, {qkv.dim(0), heads.out_columns()}, qkv);
  expect(operation, "states", states).rank(4).dtype(wide(qkv)).contiguous().device(qkv.device());
  expect(operation, "states", states).shape({states.dim(0), heads.value_heads, heads.key_dim, heads.value_dim});
  expect_state_slots(operation, batch, states.dim(0));
  if (qkv.dim(0) == 0) return;
  if (qkv.dtype() == DType::f64) return reference::gated_delta_step(out, states, inputs, batch);
  const PagedBatch::OnDevice there = batch.on_device();
  GatedDeltaForwardArgs args{inputs_of(inputs)};
  args.out = matrix_of(out);
  args.bounds = there.bounds;
  args.sequences = batch.sequences();
  args.states = states.data<float>();
  args.contexts = there.contexts;
  args.slots = there.state_slots;
  forward(args, qkv.dim(0), qkv.device());
}

}  // namespace lathe::kernels
