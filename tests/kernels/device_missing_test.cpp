// A machine without a driver. A program looks for devices once, so that this is a program of its own.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/tensor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"

namespace lathe::testing {
namespace {

TEST(MissingDevice, IsOneSentence) {
  simt::pretend(simt::Machine::no_driver);
  const std::string why = kernels::why_unavailable({DeviceKind::simt});
  EXPECT_EQ(why,
            "--device simt needs an NVIDIA card and a driver that is new enough; the CUDA runtime says: CUDA driver "
            "version is "
            "insufficient for CUDA runtime version. Use --device cpu");
  EXPECT_THROW(Tensor::empty({1}, DType::f32, {DeviceKind::simt}), ResourceError);
}

}  // namespace
}  // namespace lathe::testing
