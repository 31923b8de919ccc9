// An optimiser's step over many tensors: one launch for all of them on a device, one after another on the CPU.
#pragma once

#include <span>
#include <type_traits>
#include <vector>

#include "core/device.h"

namespace lathe::kernels {

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
