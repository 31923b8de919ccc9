#include "core/device.h"

#include <charconv>

#include "core/error.h"

namespace lathe {

Device parse_device(const std::string& text) {
  if (text == "cpu") return {DeviceKind::cpu, 0};
  if (text == "simt") return {DeviceKind::simt, 0};
  if (text == "cuda") return {DeviceKind::cuda, 0};
  if (text.starts_with("cuda:")) {
    int index = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + 5, end, index);
    if (error == std::errc{} && rest == end && index >= 0) return {DeviceKind::cuda, index};
  }
  throw ConfigError("device", "expected cpu, cuda, cuda:N or simt, found '" + text + "'");
}

std::string to_string(Device device) {
  switch (device.kind) {
    case DeviceKind::cpu: return "cpu";
    case DeviceKind::simt: return "simt";
    case DeviceKind::cuda: return "cuda:" + std::to_string(device.index);
  }
  return "?";
}

}  // namespace lathe
