#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"
#include "kernels/linear_cross_entropy/device.h"
#include "kernels/linear_cross_entropy/rows.h"
#include "kernels/matmul/cuda/column_statistics.h"

namespace lathe::kernels {
namespace {

constexpr const char* operation = "linear_cross_entropy";

void check_labels(const Tensor& labels, int64_t tokens, int64_t vocabulary) {
  expect(operation, "labels", labels).shape({tokens}).dtype(DType::i32).contiguous().device({});
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t label = labels.data<int32_t>()[t];
    if (label != ignored_label && (label < 0 || label >= vocabulary)) {
      throw ShapeError(std::string(operation) + ": labels[" + std::to_string(t) + "] expects 0 ≤ label < " +
                       std::to_string(vocabulary) + " (the rows of weight) or " + std::to_string(ignored_label) +
                       " to ignore it, found " + std::to_string(label));
    }
  }
}

void check_stored_labels(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs) {
  const Tensor &rows = inputs.labelled.rows, &bounds = inputs.labelled.bounds;
  const Device device = inputs.hidden.device();
  if (device.kind == DeviceKind::cpu)
    throw ShapeError(std::string(operation) + ": labelled rows are for hidden states on a device");
  expect(operation, "labelled.rows", rows).rank(1).dtype(DType::i32).contiguous().device(device);
  expect(operation, "labels", inputs.labels).shape(rows.shape()).dtype(DType::i32).contiguous().device(device);
  if (rows.numel() > inputs.hidden.dim(0))
    throw ShapeError(std::string(operation) + ": labelled.rows expects at most the rows of hidden, " +
                     std::to_string(inputs.hidden.dim(0)) + ", found " + describe(rows));
  if (!outputs.grad_weight.defined()) return;
  if (!bounds.defined())
    throw ShapeError(std::string(operation) +
                     ": labelled.bounds expects those of every sequence, whose sums grad_weight is made of");
  expect(operation, "labelled.bounds", bounds).device({});
  expect_cu_seqlens(operation, bounds, rows.numel());
}

void check(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs) {
  const Tensor &hidden = inputs.hidden, &labels = inputs.labels;
  const Weight& weight = inputs.weight;
  expect(operation, "hidden", hidden)
      .rank(2)
      .dtype({DType::f32, DType::bf16, DType::f16, DType::f64})
      .rows_contiguous();
  const Device device = hidden.device();
  if (device.kind != DeviceKind::cpu) expect(operation, "hidden", hidden).dtype({DType::f32, DType::bf16, DType::f16});
  const int64_t tokens = hidden.dim(0), vocabulary = weight.rows();
  const DType wide = hidden.dtype() == DType::f64 ? DType::f64 : DType::f32;
  if (weight.columns() != hidden.dim(1) || weight.dtype() != hidden.dtype()) {
    throw ShapeError(std::string(operation) + ": weight expects " + std::string(name_of(hidden.dtype())) + "[V, " +
                     std::to_string(hidden.dim(1)) + "] for hidden " + describe(hidden) + ", found " +
                     std::string(name_of(weight.dtype())) + "[" + std::to_string(vocabulary) + ", " +
                     std::to_string(weight.columns()) + "]");
  }
  if (weight.device() != device) {
    throw ShapeError(std::string(operation) + ": weight expects a weight on " + to_string(device) +
                     " like hidden, found one on " + to_string(weight.device()));
  }
  inputs.labelled.defined() ? check_stored_labels(outputs, inputs) : check_labels(labels, tokens, vocabulary);
  if (!(inputs.temperature > 0 && std::isnormal(inputs.temperature)))  // its inverse is finite, too
    throw ConfigError("temperature", "expected a number > 0, found " + std::to_string(inputs.temperature));
  if (inputs.token_scales.defined())
    expect(operation, "token_scales", inputs.token_scales).shape({tokens}).dtype(wide).contiguous().device(device);
  if (inputs.entropy_scales.defined())
    expect(operation, "entropy_scales", inputs.entropy_scales).shape({tokens}).dtype(wide).contiguous().device(device);
  if (outputs.log_sum_sq_probs.defined())
    expect(operation, "log_sum_sq_probs", outputs.log_sum_sq_probs)
        .shape({tokens})
        .dtype(wide)
        .contiguous()
        .device(device);
  if (outputs.loss.defined())
    expect(operation, "loss", outputs.loss).shape({tokens}).dtype(wide).contiguous().device(device);
  if (outputs.entropy.defined())
    expect(operation, "entropy", outputs.entropy).shape({tokens}).dtype(wide).contiguous().device(device);
  if (outputs.correct.defined()) {
    expect(operation, "correct", outputs.correct).shape({tokens}).dtype(DType::u8).contiguous().device(device);
  }
  if (outputs.grad_hidden.defined()) {
    expect(operation, "grad_hidden", outputs.grad_hidden)
        .shape(hidden.shape())
        .dtype(hidden.dtype())
        .rows_contiguous()
        .device(device);
  }
  if (outputs.grad_weight.defined()) {
    expect(operation, "grad_weight", outputs.grad_weight)
        .shape({vocabulary, hidden.dim(1)})
        .dtype(wide)
        .rows_contiguous()
        .device(device);
    if (!inputs.labelled.defined()) expect_cu_seqlens(operation, inputs.cu_seqlens, tokens);
  }
}

// Rows whose logits exist at one time.
int64_t chunk_rows(const Tensor& hidden) {
  return hidden.device().kind == DeviceKind::cpu ? cross_entropy_chunk : cross_entropy_device_chunk(hidden.dim(1));
}

// A part of the tokens with labels. `groups` are the bounds, within a chunk, of the sums that grad_weight is made of.
struct Chunk {
  int64_t begin, end;  // among the tokens with labels
  std::vector<int32_t> groups{0};
  std::vector<int64_t> tokens = {};
  Tensor stored_tokens = {}, stored_labels = {};  // of each row, on the device, instead of tokens

  device::TokensOfRows tokens_of_rows() const { return {.listed = tokens, .stored = stored_tokens}; }
  int64_t rows() const { return end - begin; }
  // Of stored tokens nobody knows.
  bool consecutive() const {
    return !stored_tokens.defined() && tokens.back() - tokens.front() + 1 == static_cast<int64_t>(tokens.size());
  }
};

// Groups start at a sequence's first labelled row and are never cut by a chunk: a sequence's sums are the same in any
// batch. `bounds` are those of the sequences among the tokens with labels.
std::vector<Chunk> chunks_by_sequence(std::span<const int32_t> bounds, int64_t rows) {
  std::vector<Chunk> chunks;
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    for (int64_t first = bounds[s]; first < bounds[s + 1]; first += cross_entropy_chunk) {
      const int64_t end = std::min<int64_t>(first + cross_entropy_chunk, bounds[s + 1]);
      if (chunks.empty() || end - chunks.back().begin > rows) chunks.push_back({.begin = first, .end = first});
      chunks.back().end = end;
      chunks.back().groups.push_back(static_cast<int32_t>(chunks.back().rows()));
    }
  }
  return chunks;
}

// With no weight gradient there is no sum over rows: chunks as even as can be, so that none streams the weight for a
// few rows.
std::vector<Chunk> even_chunks(int64_t labelled, int64_t rows) {
  const int64_t count = (labelled + rows - 1) / rows;
  std::vector<Chunk> chunks;
  for (int64_t c = 0; c < count; ++c)
    chunks.push_back({.begin = (c * labelled + count - 1) / count, .end = ((c + 1) * labelled + count - 1) / count});
  return chunks;
}

// Of labels on the CPU: the tokens that have one, and the bounds of each sequence's among them.
struct ListedTokens {
  std::vector<int64_t> tokens;
  std::vector<int32_t> bounds{0};
};

ListedTokens listed_tokens(std::span<const int32_t> labels, std::span<const int32_t> ends) {
  ListedTokens listed;
  size_t next_end = 1;
  for (size_t t = 0; t < labels.size(); ++t) {
    for (; next_end < ends.size() && static_cast<size_t>(ends[next_end]) <= t; ++next_end)
      listed.bounds.push_back(static_cast<int32_t>(listed.tokens.size()));
    if (labels[t] != ignored_label) listed.tokens.push_back(static_cast<int64_t>(t));
  }
  for (; next_end < ends.size(); ++next_end) listed.bounds.push_back(static_cast<int32_t>(listed.tokens.size()));
  return listed;
}

std::vector<Chunk> chunks_of(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs) {
  const int64_t rows = chunk_rows(inputs.hidden);
  const bool by_sequence = outputs.grad_weight.defined();
  if (const LabelledRows& stored = inputs.labelled; stored.defined()) {
    std::vector<Chunk> chunks =
        by_sequence ? chunks_by_sequence(stored.bounds.span<int32_t>(), rows) : even_chunks(stored.rows.numel(), rows);
    for (Chunk& chunk : chunks) {
      chunk.stored_tokens = stored.rows.slice(0, chunk.begin, chunk.end);
      chunk.stored_labels = inputs.labels.slice(0, chunk.begin, chunk.end);
    }
    return chunks;
  }
  const ListedTokens listed = listed_tokens(
      inputs.labels.span<int32_t>(), by_sequence ? inputs.cu_seqlens.span<int32_t>() : std::span<const int32_t>());
  std::vector<Chunk> chunks =
      by_sequence ? chunks_by_sequence(listed.bounds, rows) : even_chunks(std::ssize(listed.tokens), rows);
  for (Chunk& chunk : chunks)
    chunk.tokens.assign(listed.tokens.begin() + chunk.begin, listed.tokens.begin() + chunk.end);
  return chunks;
}

void move_rows(const Tensor& matrix, const Tensor& packed, const Chunk& chunk, Direction direction) {
  if (matrix.device().kind != DeviceKind::cpu)
    return device::move_rows(matrix, packed, chunk.tokens_of_rows(), direction);
  const std::vector<int64_t>& tokens = chunk.tokens;
  const size_t row_bytes = static_cast<size_t>(matrix.dim(1) * size_of(matrix.dtype()));
  for (size_t r = 0; r < tokens.size(); ++r) {
    void* row = matrix.select(0, tokens[r]).raw();
    void* slot = packed.select(0, static_cast<int64_t>(r)).raw();
    direction == Direction::gather ? std::memcpy(slot, row, row_bytes) : std::memcpy(row, slot, row_bytes);
  }
}

template <class Real>
CrossEntropyCall<Real> call_of(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs,
                               const Tensor& logits) {
  return {.logits = logits.data<Real>(),
          .stride = logits.stride(0),
          .columns = logits.dim(1),
          .loss = outputs.loss.defined() ? outputs.loss.data<Real>() : nullptr,
          .entropy = outputs.entropy.defined() ? outputs.entropy.data<Real>() : nullptr,
          .log_sum_sq_probs = outputs.log_sum_sq_probs.defined() ? outputs.log_sum_sq_probs.data<Real>() : nullptr,
          .correct = outputs.correct.defined() ? outputs.correct.data<uint8_t>() : nullptr,
          .gradient = outputs.grad_hidden.defined() || outputs.grad_weight.defined(),
          .gradient_dtype = inputs.hidden.dtype(),
          .scale = static_cast<Real>(inputs.scale),
          .token_scales = inputs.token_scales.defined() ? inputs.token_scales.data<Real>() : nullptr,
          .entropy_scales = inputs.entropy_scales.defined() ? inputs.entropy_scales.data<Real>() : nullptr,
          .softcap = inputs.softcap,
          .inverse_temperature = Real{1} / static_cast<Real>(inputs.temperature)};
}

// Losses of a chunk from its logits, which become their own gradient.
void run_rows(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs, const Tensor& logits,
              const Tensor& statistics, const Chunk& chunk) {
  const int64_t* tokens = chunk.tokens.data();
  if (logits.device().kind != DeviceKind::cpu)
    return device::cross_entropy_rows(call_of<float>(outputs, inputs, logits), statistics, chunk.tokens_of_rows(),
                                      chunk.stored_labels.defined() ? chunk.stored_labels : inputs.labels,
                                      logits.device());
  const int32_t* listed = inputs.labels.data<int32_t>();
  if (logits.dtype() == DType::f64) {
    return reference::cross_entropy_rows({call_of<double>(outputs, inputs, logits), tokens, listed, 0, logits.dim(0)});
  }
  const auto call = call_of<float>(outputs, inputs, logits);
  parallel_for(logits.dim(0), std::max<int64_t>(1, 8192 / logits.dim(1)), [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { cross_entropy_rows<isa>({call, tokens, listed, begin, end}); });
  });
}

// The chunk's logits. On a device with the statistics of their groups of columns, undefined where none were made.
Tensor make_logits(const CrossEntropyInputs& inputs, const Tensor& logits, const Tensor& x,
                   const Tensor& room_for_statistics) {
  if (room_for_statistics.defined()) {
    const Tensor statistics = room_for_statistics.slice(0, 0, logits.dim(0));
    if (device::logits_with_statistics(logits, statistics, x, inputs.weight, 1.0f / inputs.temperature))
      return statistics;
  }
  linear_forward(logits, x, inputs.weight);
  return {};
}

// For make_logits. No product makes those of f32, and of logits that are capped, which is done when they are read.
Tensor statistics_room(const CrossEntropyInputs& inputs, const Tensor& logits) {
  if (logits.device().kind == DeviceKind::cpu || inputs.hidden.dtype() == DType::f32 || inputs.softcap > 0.0f)
    return {};
  constexpr int64_t columns = ColumnStatistics::columns;
  return Tensor::empty({logits.dim(0), (logits.dim(1) + columns - 1) / columns, 2}, DType::f32, logits.device(),
                       MemoryTag::workspace);
}

}  // namespace

void linear_cross_entropy(const CrossEntropyOutputs& outputs, const CrossEntropyInputs& inputs) {
  check(outputs, inputs);
  const Tensor& hidden = inputs.hidden;
  const Weight& weight = inputs.weight;
  for (const Tensor& measured : {outputs.loss, outputs.entropy, outputs.correct, outputs.log_sum_sq_probs}) {
    if (measured.defined()) fill(measured, 0.0);
  }
  const std::vector<Chunk> chunks = chunks_of(outputs, inputs);
  int64_t labelled = 0, most = 0;
  for (const Chunk& chunk : chunks) {
    labelled += chunk.rows();
    most = std::max(most, chunk.rows());
  }
  if (outputs.grad_hidden.defined() && labelled < hidden.dim(0)) fill(outputs.grad_hidden, 0.0);
  if (chunks.empty()) return;

  const int64_t vocabulary = weight.rows(), width = hidden.dim(1);
  const DType dtype = hidden.dtype(), wide = dtype == DType::f64 ? DType::f64 : DType::f32;
  const Tensor all_logits = Tensor::empty({most, vocabulary}, wide, hidden.device(), MemoryTag::workspace);
  const Tensor all_statistics = statistics_room(inputs, all_logits);
  // The same bytes as gradients: each row starts where its logits start.
  const Tensor all_gradients = Tensor::from_storage(all_logits.storage(), all_logits.byte_offset(),
                                                    {most, vocabulary * size_of(wide) / size_of(dtype)}, dtype);
  Tensor gathered, grad_gathered;  // made when a chunk's tokens are not consecutive
  for (const Chunk& chunk : chunks) {
    const int64_t rows = chunk.rows();
    const bool consecutive = chunk.consecutive();
    const int64_t first = consecutive ? chunk.tokens.front() : 0;
    Tensor x = hidden.slice(0, first, first + (consecutive ? rows : 0));
    if (!consecutive) {
      if (!gathered.defined()) gathered = Tensor::empty({most, width}, dtype, hidden.device(), MemoryTag::workspace);
      x = gathered.slice(0, 0, rows);
      move_rows(hidden, x, chunk, Direction::gather);
    }
    const Tensor logits = all_logits.slice(0, 0, rows);
    run_rows(outputs, inputs, logits, make_logits(inputs, logits, x, all_statistics), chunk);
    const Tensor gradients = all_gradients.slice(0, 0, rows).slice(1, 0, vocabulary);
    if (outputs.grad_weight.defined()) {
      const Tensor groups =
          Tensor::of<int32_t>(chunk.groups, {static_cast<int64_t>(chunk.groups.size())}, MemoryTag::workspace);
      linear_weight_gradient(outputs.grad_weight, gradients, x, groups);
    }
    if (!outputs.grad_hidden.defined()) continue;
    if (consecutive) {
      linear_input_gradient(
          {.grad_x = outputs.grad_hidden.slice(0, first, first + rows), .grad_out = gradients, .weight = weight});
      continue;
    }
    if (!grad_gathered.defined())
      grad_gathered = Tensor::empty({most, width}, dtype, hidden.device(), MemoryTag::workspace);
    const Tensor grad_x = grad_gathered.slice(0, 0, rows);
    linear_input_gradient({.grad_x = grad_x, .grad_out = gradients, .weight = weight});
    move_rows(outputs.grad_hidden, grad_x, chunk, Direction::scatter);
  }
}

}  // namespace lathe::kernels
