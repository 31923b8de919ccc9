// Devices as the host sees them: what is there, copies, waiting. Works for cpu, simt and cuda alike.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"

namespace lathe::kernels {

// Later launches of this thread go to that device. Throws ResourceError where it cannot be used.
void use_device(Device device);

// Empty when the device can be used; otherwise why not ("no CUDA driver: …").
std::string why_unavailable(Device device);

// Copies bytes between any two of cpu, simt and cuda devices, ordered after the work queued so far. Returns when the
// bytes have arrived.
void copy_bytes(Device to_device, void* to, Device from_device, const void* from, int64_t bytes);

// What the device could still give.
int64_t free_memory_bytes(Device device);

// "NVIDIA H100 80GB HBM3", "simt".
std::string device_name(Device device);
// Of a card or simt: what a working set must exceed to come from memory.
int64_t last_cache_bytes(Device device);

// Waits for all work queued on the device. Throws Error with what a kernel did wrong.
void synchronize(Device device);

}  // namespace lathe::kernels
