#include "kernels/lion/lion.h"

#include <optional>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"
#include "kernels/lion/bodies.h"
#include "kernels/lion/reference.h"
#include "kernels/step_tensors.h"

namespace lathe::kernels {
namespace {

void check(const LionTensors& t, Device device) {
  expect("lion", "weight", t.weight).dtype({DType::f32, DType::f64}).contiguous().device(device);
  for (const auto& [name, tensor] : {std::pair{"grad", &t.grad}, std::pair{"m", &t.m}})
    expect("lion", name, *tensor).shape(t.weight.shape()).dtype(t.weight.dtype()).contiguous().device(device);
  if (t.weight.dtype() == DType::f64) expect_cpu("lion", t.weight);
}

LionTensor pointers_of(const LionTensors& t) {
  return {t.weight.data<float>(), t.grad.data<float>(), t.m.data<float>(), rounded_of("lion", t.rounded, t.weight),
          t.weight.numel()};
}

LionConstants constants_of(const LionParams& params) {
  return {.grad_scale = static_cast<float>(params.grad_scale),
          .keep_weight = static_cast<float>(1.0 - params.learning_rate * params.weight_decay),
          .learning_rate = static_cast<float>(params.learning_rate),
          .beta1 = static_cast<float>(params.beta1),
          .one_less_beta1 = static_cast<float>(1.0 - params.beta1),
          .beta2 = static_cast<float>(params.beta2),
          .one_less_beta2 = static_cast<float>(1.0 - params.beta2)};
}

void on_cpu(const LionTensors& t, const LionParams& params) {
  if (t.weight.dtype() == DType::f64) {
    reference::lion(t.weight, t.grad, t.m, params);
  } else {
    const LionTensor pointers = pointers_of(t);
    const LionConstants constants = constants_of(params);
    parallel_for(pointers.count, 32768, [&](int64_t begin, int64_t end) {
      with_isa([&]<Isa isa>() { lion_range<isa>({pointers, constants, begin, end}); });
    });
  }
  if (t.rounded.defined()) copy(t.rounded, t.weight);
}

}  // namespace

void lion(std::span<const LionTensors> tensors, const LionParams& given, const Tensor& clip) {
  const std::optional<LionParams> params = with_factor_of(clip, given);
  if (!params) return;
  step_tensors(
      tensors, check, [&](const LionTensors& t) { on_cpu(t, *params); }, pointers_of,
      [&](Device device, const std::vector<LionTensor>& pointers) {
        with_device(device, [&]<DeviceKind kind>() {
          lion_tensors<kind>(
              {pointers.data(), std::ssize(pointers), constants_of(*params), factor_on(device, "lion", clip)});
        });
      });
}

void lion(const Tensor& weight, const Tensor& grad, const Tensor& m, const LionParams& params) {
  const LionTensors one{weight, grad, m};
  lion({&one, 1}, params);
}

}  // namespace lathe::kernels
