#include "kernels/ceilings/ceilings.h"

#include "core/error.h"
#include "kernels/ceilings/cuda.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"

namespace lathe::kernels {
namespace {

template <class Body>
double multiply(const char* operation, const Tensor& out, double operations_of_thread, int rounds, const Body& body) {
  const int64_t threads = ceiling_threads(out.device());
  expect(operation, "out", out).shape({threads}).dtype(DType::f32).contiguous();
  const MultiplyCeilingCuda args{out.data<float>(), rounds};
  with_device(out.device(), [&]<DeviceKind kind>() { body.template operator()<kind>(args); });
  return operations_of_thread * static_cast<double>(threads) * ceiling_chains * rounds;
}

}  // namespace

void copy_at_full_bandwidth(const Tensor& out, const Tensor& in) {
  const char* operation = "copy_at_full_bandwidth";
  expect(operation, "in", in).contiguous();
  expect(operation, "out", out).shape(in.shape()).dtype(in.dtype()).contiguous().device(in.device());
  if (in.nbytes() % 64 != 0)
    throw ShapeError(std::string(operation) + ": in expects a multiple of 64 bytes, found " + describe(in));
  with_device(in.device(), [&]<DeviceKind kind>() { copy_ceiling<kind>({out.raw(), in.raw(), in.nbytes()}); });
}

double multiply_bf16_at_peak(const Tensor& out, int rounds) {
  bool by_wgmma = false;
  with_device(out.device(), [&]<DeviceKind kind>() { by_wgmma = has_wgmma_ceiling<kind>(); });
  if (by_wgmma)  // a warpgroup's instruction is 64 × 256 × 16 products and sums
    return multiply("multiply_bf16_at_peak", out, 2.0 * 64 * 256 * 16 / 128, rounds,
                    []<DeviceKind kind>(const MultiplyCeilingCuda& args) { multiply_wgmma_ceiling<kind>(args); });
  // A warp's instruction is 16 × 8 × 16 products and sums.
  return multiply("multiply_bf16_at_peak", out, 2.0 * 16 * 8 * 16 / 32, rounds,
                  []<DeviceKind kind>(const MultiplyCeilingCuda& args) { multiply_bf16_ceiling<kind>(args); });
}

double multiply_f32_at_peak(const Tensor& out, int rounds) {
  return multiply("multiply_f32_at_peak", out, 2.0, rounds,
                  []<DeviceKind kind>(const MultiplyCeilingCuda& args) { multiply_f32_ceiling<kind>(args); });
}

int64_t ceiling_threads(Device device) {
  int64_t threads = 0;
  with_device(device, [&]<DeviceKind kind>() { ceiling_thread_count<kind>({&threads}); });
  return threads;
}

}  // namespace lathe::kernels
