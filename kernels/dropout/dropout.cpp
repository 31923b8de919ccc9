#include "kernels/dropout/dropout.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/random.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/dropout/bodies.h"
#include "kernels/dropout/reference.h"

namespace lathe::kernels {
namespace {

constexpr const char* operation = "dropout";
constexpr int64_t max_columns = int64_t{1} << 16, max_tokens = int64_t{1} << 18, max_samples = int64_t{1} << 16;
static_assert(max_columns / 4 == int64_t{1} << dropout_position_shift &&
              max_tokens << dropout_position_shift == int64_t{1} << 32);

// With the step that the host can read; 0 where a device is to read it.
DropoutParams with_step(DropoutParams params, Device device) {
  if (params.stored_step == nullptr) return params;
  const bool here = device.kind == DeviceKind::cpu;
  params.step = here ? *params.stored_step : 0;
  if (here) params.stored_step = nullptr;
  return params;
}

}  // namespace

void expect_dropout(std::string_view operation, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
                    const DropoutParams& params) {
  const std::string name(operation);
  if (!(params.probability >= 0.0f && params.probability < 1.0f)) {
    throw ConfigError("dropout", "a probability in [0, 1) is expected, not " + std::to_string(params.probability));
  }
  if (x.dim(1) > max_columns) throw ShapeError(name + ": x expects at most 65536 columns, found " + describe(x));
  expect_cu_seqlens(operation, cu_seqlens, x.dim(0));
  expect(operation, "sample_numbers", sample_numbers).shape({cu_seqlens.dim(0) - 1}).dtype(DType::i32).contiguous();
  const auto bounds = cu_seqlens.span<int32_t>(), samples = sample_numbers.span<int32_t>();
  for (size_t s = 0; s < samples.size(); ++s) {
    if (samples[s] >= 0 && samples[s] < max_samples && bounds[s + 1] - bounds[s] <= max_tokens) continue;
    throw ShapeError(name + " numbers samples in [0, 65536) of at most 262144 tokens; sequence " + std::to_string(s) +
                     " is sample " + std::to_string(samples[s]) + " with " + std::to_string(bounds[s + 1] - bounds[s]) +
                     " tokens");
  }
}

DropoutMask dropout_mask(const DropoutParams& given, Device device) {
  const DropoutParams params = with_step(given, device);
  DropoutMask mask{.key = {},
                   .counter = {},
                   .stored_step = params.stored_step,
                   .threshold = static_cast<uint32_t>(std::ldexp(static_cast<double>(params.probability), 32)),
                   .scale = 1.0f / (1.0f - params.probability)};
  const PhiloxKey key = philox_key(params.seed);
  const PhiloxCounter counter =
      philox_counter(RandomPurpose::dropout, (uint64_t{params.step} << 16) + params.stream, 0);
  std::copy(key.begin(), key.end(), mask.key);
  std::copy(counter.begin(), counter.end(), mask.counter);
  return mask;
}

void dropout(const Tensor& out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
             const DropoutParams& params) {
  expect(operation, "x", x).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "x", x);
  expect(operation, "out", out).shape(x.shape()).dtype(x.dtype()).rows_contiguous().device(x.device());
  expect_dropout(operation, x, cu_seqlens, sample_numbers, params);
  if (x.numel() == 0) return;
  if (x.dtype() == DType::f64)
    return reference::dropout(out, x, cu_seqlens, sample_numbers, with_step(params, x.device()));
  const DropoutArgs args{.dtype = x.dtype(),
                         .out = matrix_of(out),
                         .x = matrix_of(x),
                         .cu_seqlens = cu_seqlens.data<int32_t>(),
                         .sample_numbers = sample_numbers.data<int32_t>(),
                         .sequences = sample_numbers.dim(0),
                         .mask = dropout_mask(params, x.device()),
                         .columns = x.dim(1),
                         .row_begin = 0,
                         .row_end = x.dim(0)};
  run_rows(
      args, x.device(), []<auto target>(const DropoutArgs& rows) { dropout_rows<target>(rows); });
}

}  // namespace lathe::kernels
