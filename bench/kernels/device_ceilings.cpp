#include <algorithm>
#include <functional>

#include "bench/kernels/ceilings.h"
#include "bench/kernels/clock.h"
#include "core/tensor.h"
#include "kernels/ceilings/ceilings.h"
#include "kernels/cuda/runtime.h"

namespace lathe::bench {
namespace {

// The best of several tries, each much longer than a launch takes. The first warms up.
double best_rate(Device device, const std::function<double()>& queue) {
  double best = 0;
  for (int attempt = 0; attempt < 8; ++attempt) {
    kernels::synchronize(device);
    const double start = now_seconds();
    const double done = queue();
    kernels::synchronize(device);
    if (attempt > 0) best = std::max(best, done / (now_seconds() - start));
  }
  return best;
}

}  // namespace

Ceilings measure_device_ceilings(Device device) {
  const bool emulated = device.kind == DeviceKind::simt;  // there only to show that the bench runs
  const Tensor out = Tensor::zeros({kernels::ceiling_threads(device)}, DType::f32, device);
  const int rounds = emulated ? 4 : 1 << 14, copies = emulated ? 1 : 20;
  Ceilings ceilings;
  ceilings.bf16_flops = best_rate(device, [&] { return kernels::multiply_bf16_at_peak(out, rounds); });
  ceilings.f32_flops = best_rate(device, [&] { return kernels::multiply_f32_at_peak(out, rounds); });
  const int64_t bytes =
      emulated ? 1 << 16 : std::max<int64_t>(3 * last_cache_bytes(device), int64_t{1} << 28) / 64 * 64;
  const Tensor from = Tensor::zeros({bytes}, DType::u8, device), to = Tensor::empty({bytes}, DType::u8, device);
  ceilings.bytes = best_rate(device, [&] {
    for (int i = 0; i < copies; ++i) kernels::copy_at_full_bandwidth(to, from);
    return 2.0 * static_cast<double>(bytes) * copies;
  });
  ceilings.reading = ceilings.bytes;
  return ceilings;
}

}  // namespace lathe::bench
