#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/linear_cross_entropy/device.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/linear_cross_entropy/rows.h"

namespace lathe::kernels {
namespace {

template <class Real>
TokenLogprobRows<Real> rows_of(const Tensor& logprobs, const Tensor& logits, const Tensor& targets) {
  TokenLogprobRows<Real> rows{};
  rows.logits = logits.data<Real>();
  rows.stride = logits.stride(0);
  rows.columns = logits.dim(1);
  rows.targets = targets.data<int32_t>();
  rows.logprobs = logprobs.data<Real>();
  return rows;
}

void check_targets(const Tensor& targets, int64_t vocabulary) {
  for (int64_t t = 0; t < targets.dim(0); ++t) {
    const int32_t target = targets.data<int32_t>()[t];
    if (target < 0 || target >= vocabulary) {
      throw ShapeError("token_logprobs: targets[" + std::to_string(t) + "] expects 0 ≤ target < " +
                       std::to_string(vocabulary) + " (the columns of logits), found " + std::to_string(target));
    }
  }
}

}  // namespace

void token_logprobs(const Tensor& logprobs, const Tensor& logits, const Tensor& targets) {
  const char* operation = "token_logprobs";
  const bool on_cpu = logits.device().kind == DeviceKind::cpu;
  expect(operation, "logits", logits).rank(2).dtype({DType::f32, on_cpu ? DType::f64 : DType::f32}).rows_contiguous();
  expect(operation, "logprobs", logprobs)
      .shape({logits.dim(0)})
      .dtype(logits.dtype())
      .contiguous()
      .device(logits.device());
  expect(operation, "targets", targets).shape({logits.dim(0)}).dtype(DType::i32).contiguous();
  if (targets.device().kind == DeviceKind::cpu) {
    check_targets(targets, logits.dim(1));
  } else {
    expect(operation, "targets", targets).device(logits.device());
  }
  if (logits.dim(0) == 0) return;
  if (!on_cpu) return device::token_logprobs(logprobs, logits, targets);
  if (logits.dtype() == DType::f64) {
    auto rows = rows_of<double>(logprobs, logits, targets);
    rows.row_end = logits.dim(0);
    return reference::token_logprob_rows(rows);
  }
  const auto rows = rows_of<float>(logprobs, logits, targets);
  parallel_for(logits.dim(0), std::max<int64_t>(1, 8192 / logits.dim(1)), [&](int64_t begin, int64_t end) {
    auto range = rows;
    range.row_begin = begin;
    range.row_end = end;
    with_isa([&]<Isa isa>() { token_logprob_rows<isa>(range); });
  });
}

}  // namespace lathe::kernels
