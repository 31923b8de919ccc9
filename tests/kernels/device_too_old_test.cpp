// A machine whose card is too old. A program looks for devices once, so that this is a program of its own.
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/tensor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"

namespace lathe::testing {
namespace {

TEST(OldDevice, IsOneSentence) {
  simt::pretend(simt::Machine::old_card);
  const std::string why = kernels::why_unavailable({DeviceKind::simt});
  EXPECT_EQ(why,
            "device simt:1 has compute capability 7.5; Lathe's kernels need 8.0 (A100, RTX 30) or newer. "
            "CUDA_VISIBLE_DEVICES can "
            "leave it out");
  EXPECT_THROW(Tensor::empty({1}, DType::f32, {DeviceKind::simt}), ResourceError);
}

}  // namespace
}  // namespace lathe::testing
