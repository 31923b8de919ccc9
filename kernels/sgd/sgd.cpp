#include "kernels/sgd/sgd.h"

#include <optional>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"
#include "kernels/sgd/bodies.h"
#include "kernels/sgd/reference.h"
#include "kernels/step_tensors.h"

namespace lathe::kernels {
namespace {

void check(const SgdTensors& t, Device device) {
  expect("sgd", "weight", t.weight).dtype({DType::f32, DType::f64}).contiguous().device(device);
  expect("sgd", "grad", t.grad).shape(t.weight.shape()).dtype(t.weight.dtype()).contiguous().device(device);
  if (t.weight.dtype() == DType::f64) expect_cpu("sgd", t.weight);
}

SgdTensor pointers_of(const SgdTensors& t) {
  return {t.weight.data<float>(), t.grad.data<float>(), rounded_of("sgd", t.rounded, t.weight), t.weight.numel()};
}

void on_cpu(const SgdTensors& t, const SgdParams& params, const SgdConstants& constants) {
  if (t.weight.dtype() == DType::f64) {
    reference::sgd(t.weight, t.grad, params);
  } else {
    const SgdTensor pointers = pointers_of(t);
    parallel_for(pointers.count, 32768, [&](int64_t begin, int64_t end) {
      with_isa([&]<Isa isa>() { sgd_range<isa>({pointers, constants, begin, end}); });
    });
  }
  if (t.rounded.defined()) copy(t.rounded, t.weight);
}

}  // namespace

void sgd(std::span<const SgdTensors> tensors, const SgdParams& given, const Tensor& clip) {
  const std::optional<SgdParams> params = with_factor_of(clip, given);
  if (!params) return;
  const SgdConstants constants{.keep_weight = static_cast<float>(1.0 - params->learning_rate * params->weight_decay),
                               .step_size = static_cast<float>(params->learning_rate * params->grad_scale)};
  step_tensors(
      tensors, check, [&](const SgdTensors& t) { on_cpu(t, *params, constants); }, pointers_of,
      [&](Device device, const std::vector<SgdTensor>& pointers) {
        with_device(device, [&]<DeviceKind kind>() {
          sgd_tensors<kind>({pointers.data(), std::ssize(pointers), constants, params->learning_rate,
                             factor_on(device, "sgd", clip)});
        });
      });
}

void sgd(const Tensor& weight, const Tensor& grad, const SgdParams& params) {
  const SgdTensors one{weight, grad};
  sgd({&one, 1}, params);
}

}  // namespace lathe::kernels
