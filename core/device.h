// Where memory lives and kernels run.
#pragma once

#include <cstdint>
#include <string>

namespace lathe {

// simt is CUDA emulated on the CPU: the same .cu sources, for tests and debugging, never for speed.
enum class DeviceKind : uint8_t { cpu, cuda, simt };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// "cpu", "cuda", "cuda:1", "simt", "simt:1"; anything else is a ConfigError.
Device parse_device(const std::string& text);
std::string to_string(Device device);

}  // namespace lathe
