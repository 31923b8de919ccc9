// An optimiser's step over many tensors: one launch for all of them on a device, one after another on the CPU.
#pragma once

#include <cmath>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/tensor.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

// The factor of the gradients may lie in a clip (kernels/gradient_norm/gradient_norm.h), which is undefined where it
// does not. These are the parameters with one that lies on the CPU; none where nothing is to change.
template <class Params>
std::optional<Params> with_factor_of(const Tensor& clip, const Params& params) {
  if (!clip.defined() || clip.device().kind != DeviceKind::cpu) return params;
  expect("an optimiser's step", "clip", clip).shape({2}).dtype(DType::f64).contiguous();
  Params with_factor = params;
  with_factor.grad_scale = clip.data<double>()[1];
  if (std::isnan(with_factor.grad_scale)) return {};
  return with_factor;
}
// Of one that lies on the tensors' device; null where it does not.
inline const double* factor_on(Device device, std::string_view operation, const Tensor& clip) {
  if (!clip.defined()) return nullptr;
  expect(operation, "clip", clip).shape({2}).dtype(DType::f64).contiguous().device(device);
  return clip.data<double>() + 1;
}

// check(tensors, device) for each before any is changed: all lie where the first one's weight does. Then
// on_cpu(tensors) for each, or on_device(device, what pointers_of(tensors) gives for each).
template <class Tensors, class Check, class OnCpu, class PointersOf, class OnDevice>
void step_tensors(std::span<const Tensors> all, const Check& check, const OnCpu& on_cpu, const PointersOf& pointers_of,
                  const OnDevice& on_device) {
  if (all.empty()) return;
  const Device device = all.front().weight.device();
  for (const Tensors& tensors : all) check(tensors, device);
  if (device.kind == DeviceKind::cpu) {
    for (const Tensors& tensors : all) on_cpu(tensors);
    return;
  }
  std::vector<std::invoke_result_t<PointersOf, const Tensors&>> pointers;
  for (const Tensors& tensors : all) pointers.push_back(pointers_of(tensors));
  on_device(device, pointers);
}

}  // namespace lathe::kernels
