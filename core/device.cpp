#include "core/device.h"

#include <charconv>

#include "core/error.h"

namespace lathe {

Device parse_device(const std::string& text) {
  if (text == "cpu") return {DeviceKind::cpu, 0};
  for (const DeviceKind kind : {DeviceKind::cuda, DeviceKind::simt}) {
    const std::string name = kind == DeviceKind::cuda ? "cuda" : "simt";
    if (text == name) return {kind, 0};
    if (!text.starts_with(name + ":")) continue;
    int index = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + name.size() + 1, end, index);
    if (error == std::errc{} && rest == end && index >= 0) return {kind, index};
  }
  throw ConfigError("device", "expected cpu, cuda, cuda:N or simt (simt:N), found '" + text + "'");
}

std::string to_string(Device device) {
  switch (device.kind) {
    case DeviceKind::cpu: return "cpu";
    case DeviceKind::simt: return device.index == 0 ? "simt" : "simt:" + std::to_string(device.index);
    case DeviceKind::cuda: return "cuda:" + std::to_string(device.index);
  }
  return "?";
}

}  // namespace lathe
