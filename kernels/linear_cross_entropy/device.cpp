#include "kernels/linear_cross_entropy/device.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/linear_cross_entropy/cuda.h"
#include "kernels/matmul/cuda/column_statistics.h"
#include "kernels/matmul/operands.h"

namespace lathe::kernels::device {
namespace {

// body(first, rows) for every launch.
template <class Body>
void for_each_launch(int64_t rows, const Body& body) {
  for (int64_t first = 0; first < rows; first += cross_entropy_rows_per_launch)
    body(first, std::min<int64_t>(cross_entropy_rows_per_launch, rows - first));
}

// The same of rows whose tokens may be stored: they are one launch.
template <class Body>
void for_each_launch(const TokensOfRows& tokens, const Body& body) {
  if (!tokens.stored.defined()) return for_each_launch(tokens.count(), body);
  if (tokens.count() > 0) body(0, tokens.count());
}

}  // namespace

bool logits_with_statistics(const Tensor& logits, const Tensor& statistics, const Tensor& hidden, const Weight& weight,
                            float inverse_temperature) {
  if (!weight.dense() && !weight.packed()) return false;
  const ProductArgs args = forward_args(logits, hidden, weight, {});
  const ColumnStatistics beside{statistics.data<float>(), statistics.dim(1), inverse_temperature};
  bool made = false;
  with_device(logits.device(), [&]<DeviceKind kind>() { made = product_with_statistics<kind>(args, beside); });
  return made;
}

void cross_entropy_rows(const CrossEntropyCall<float>& chunk, const Tensor& statistics, const TokensOfRows& tokens,
                        const Tensor& labels, Device device) {
  CrossEntropyRowsCuda args{chunk};
  args.groups = statistics.defined() ? statistics.dim(1) : 0;
  const bool stored = tokens.stored.defined();
  args.stored_tokens = stored ? tokens.stored.data<int32_t>() : nullptr;
  args.stored_labels = stored ? labels.data<int32_t>() : nullptr;
  for_each_launch(tokens, [&](int64_t first, int64_t rows) {
    args.logits = chunk.logits + first * chunk.stride;
    args.statistics = statistics.defined() ? statistics.data<float>() + 2 * first * args.groups : nullptr;
    args.rows = rows;
    for (int64_t r = 0; r < rows && !stored; ++r) {
      const int64_t token = tokens.listed[static_cast<size_t>(first + r)];
      args.tokens.at[r] = static_cast<int32_t>(token);
      args.labels.at[r] = labels.data<int32_t>()[token];
    }
    with_device(device, [&]<DeviceKind kind>() { kernels::cross_entropy_rows<kind>(args); });
  });
}

void token_logprobs(const Tensor& logprobs, const Tensor& logits, const Tensor& targets) {
  const bool on_device = targets.device().kind != DeviceKind::cpu;
  TokenLogprobsCuda args{.stride = logits.stride(0), .columns = logits.dim(1)};
  for_each_launch(logits.dim(0), [&](int64_t first, int64_t rows) {
    args.logits = logits.data<float>() + first * args.stride;
    args.logprobs = logprobs.data<float>() + first;
    args.targets = on_device ? targets.data<int32_t>() + first : nullptr;
    if (!on_device) std::copy_n(targets.data<int32_t>() + first, rows, args.listed.at);
    args.rows = rows;
    with_device(logits.device(), [&]<DeviceKind kind>() { token_logprob_rows<kind>(args); });
  });
}

void move_rows(const Tensor& matrix, const Tensor& packed, const TokensOfRows& tokens, Direction direction) {
  const int64_t element = size_of(matrix.dtype());
  MoveRowsCuda args{.matrix = matrix.raw(), .matrix_stride_bytes = matrix.stride(0) * element};
  args.packed_stride_bytes = packed.stride(0) * element;
  args.row_bytes = matrix.dim(1) * element;
  args.gather = direction == Direction::gather;
  const bool stored = tokens.stored.defined();
  args.stored_tokens = stored ? tokens.stored.data<int32_t>() : nullptr;
  for_each_launch(tokens, [&](int64_t first, int64_t rows) {
    args.packed = static_cast<char*>(packed.raw()) + first * args.packed_stride_bytes;
    for (int64_t r = 0; r < rows && !stored; ++r)
      args.tokens.at[r] = static_cast<int32_t>(tokens.listed[static_cast<size_t>(first + r)]);
    args.rows = rows;
    with_device(matrix.device(), [&]<DeviceKind kind>() { move_token_rows<kind>(args); });
  });
}

}  // namespace lathe::kernels::device
