// What the machine gives at most, measured in the run that the fractions are of: peak arithmetic in registers, and the
// bandwidth of memory, with the threads that the operations use.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"

namespace lathe::bench {

struct Ceilings {
  double f32_flops = 0;   // per second, fused multiply-adds (multiply and add apart on the baseline) counted as two
  double bf16_flops = 0;  // with the CPU's bf16 dot product (where it has none, as f32), or the card's tensor cores
  // Bytes per second. One core waits for what it reads: updating in place moves nearly twice as much.
  double reading = 0;  // reading alone
  double bytes = 0;    // read + written, whichever way moves most
  double flops(DType dtype) const { return dtype == DType::bf16 ? bf16_flops : f32_flops; }
};
double measure_peak_flops(DType dtype);  // of the CPU alone: flops(dtype)
// Bytes per second of reading so many again and again, with the CPU's threads: what a cache keeps of them counts.
double measure_reading(int64_t bytes);
Ceilings measure_ceilings();  // of the CPU, under the active instruction set; a second or two
Ceilings measure_device_ceilings(
    Device device);  // of a card, by kernels of their own (kernels/ceilings); both bandwidths are of copying

int64_t last_cache_bytes(Device device);

}  // namespace lathe::bench
