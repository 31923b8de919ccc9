// What tests of one operation on each kind of device begin with.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"

namespace lathe::kernels {

class OnEveryDevice : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor random(const Shape& shape, DType dtype) {
    const Tensor wide = Tensor::empty(shape, DType::f32);
    for (float& value : wide.span<float>()) value = random_.normal();
    return moved(cast(wide, dtype), device());
  }
  static std::vector<std::byte> bytes(const Tensor& tensor) {
    if (!tensor.defined()) return {};
    std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
    copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
    return result;
  }

 private:
  RandomStream random_{1, RandomPurpose::test};
};

inline auto every_device() { return ::testing::Values(DeviceKind::cpu, DeviceKind::simt, DeviceKind::cuda); }
inline std::string name_of_device(const ::testing::TestParamInfo<DeviceKind>& info) {
  return to_string(Device{info.param}).substr(0, 4);
}

}  // namespace lathe::kernels
