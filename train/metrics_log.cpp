#include "train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::train {
namespace {

nlohmann::ordered_json json_value(double value) {
  if (std::floor(value) == value && std::fabs(value) < 0x1p53) return static_cast<int64_t>(value);
  return value;
}

std::string whole_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return {};
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

LoggedLine parse_line(const std::filesystem::path& path, int64_t number, std::string_view text) {
  const std::string place = path.string() + " line " + std::to_string(number);
  const auto object = parse_json(text, place);
  if (!object.is_object() || !object.contains("step")) throw FormatError(place, -1, "is no JSON object with a step");
  LoggedLine line;
  line.step = json_integer(object["step"], "step", 0, INT64_MAX, place);
  for (const auto& [name, value] : object.items())
    if (name != "step" && value.is_number()) line.metrics.emplace_back(name, value.get<double>());
  return line;
}

// Calls visit(line number, text without its line end, end offset) for each whole line.
template <class Visit>
void for_each_line(const std::string& text, Visit visit) {
  int64_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    visit(++number, std::string_view(text).substr(begin, end - begin), end + 1);
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path path, LogExtent extent) : path_(std::move(path)), extent_(extent) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw ResourceError("cannot write " + path_.string() + ": " + std::strerror(errno));
}

MetricsLog::~MetricsLog() { ::close(descriptor_); }

void MetricsLog::append(int64_t step, const Metrics& metrics) {
  nlohmann::ordered_json object = {{"step", step}};
  for (const auto& [name, value] : metrics) object[name] = json_value(value);
  const std::string line = object.dump() + "\n";
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  size_t written = 0;
  while (written < line.size()) {
    const ssize_t count = ::write(descriptor_, line.data() + written, line.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int reason = errno;
      // Half a line is dropped on resume too; nothing more can be done where this fails.
      if (::ftruncate(descriptor_, before) != 0) errno = reason;
      throw ResourceError("cannot write " + path_.string() + ": " + std::strerror(reason) +
                          "; make room and go on with --resume");
    }
    written += static_cast<size_t>(count);
  }
  ++extent_.lines;
  extent_.bytes += static_cast<int64_t>(line.size());
}

void MetricsLog::sync() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL)
    throw ResourceError("cannot sync " + path_.string() + ": " + std::strerror(errno));
}

std::vector<LoggedLine> read_metrics(const std::filesystem::path& path) {
  std::vector<LoggedLine> lines;
  for_each_line(whole_file(path), [&](int64_t number, std::string_view text, size_t) {
    lines.push_back(parse_line(path, number, text));
  });
  return lines;
}

LogExtent truncate_metrics(const std::filesystem::path& path, int64_t step) {
  const std::string text = whole_file(path);
  std::string kept;
  LogExtent extent;
  size_t begin = 0;
  for_each_line(text, [&](int64_t number, std::string_view line, size_t end) {
    if (parse_line(path, number, line).step <= step) {
      kept += text.substr(begin, end - begin);
      ++extent.lines;
    }
    begin = end;
  });
  if (kept != text) write_file_atomically(path, kept);
  extent.bytes = static_cast<int64_t>(kept.size());
  return extent;
}

}  // namespace lathe::train
