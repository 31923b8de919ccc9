#include "kernels/ceilings/ceilings.h"

#include "core/error.h"
#include "kernels/ceilings/cuda.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {
namespace {

double multiply(const char* operation, const Tensor& out, double operations_of_thread,
                void (*body)(const MultiplyCeilingCuda&, Device), int rounds) {
  const int64_t threads = ceiling_threads(out.device());
  expect(operation, "out", out).shape({threads}).dtype(DType::f32).contiguous();
  body({out.data<float>(), rounds}, out.device());
  return operations_of_thread * static_cast<double>(threads) * ceiling_chains * rounds;
}

}  // namespace

void copy_at_full_bandwidth(const Tensor& out, const Tensor& in) {
  const char* operation = "copy_at_full_bandwidth";
  expect(operation, "in", in).contiguous();
  expect(operation, "out", out).shape(in.shape()).dtype(in.dtype()).contiguous().device(in.device());
  if (in.nbytes() % 64 != 0) throw ShapeError(std::string(operation) + ": in expects a multiple of 64 bytes, found " + describe(in));
  device::copy_ceiling({out.raw(), in.raw(), in.nbytes()}, in.device());
}

double multiply_bf16_at_peak(const Tensor& out, int rounds) {
  // A warp's instruction is 16 × 8 × 16 products and sums.
  return multiply("multiply_bf16_at_peak", out, 2.0 * 16 * 8 * 16 / 32, device::multiply_bf16_ceiling, rounds);
}

double multiply_f32_at_peak(const Tensor& out, int rounds) {
  return multiply("multiply_f32_at_peak", out, 2.0, device::multiply_f32_ceiling, rounds);
}

int64_t ceiling_threads(Device device) {
  int64_t threads = 0;
  device::ceiling_thread_count({&threads}, device);
  return threads;
}

}  // namespace lathe::kernels
