// metrics.jsonl and timings.jsonl: one JSON object a line, "step" first. Lines are appended as they come; what depends
// on the clock stands in timings.jsonl alone, so that two runs of the same config have the same bytes in metrics.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>

#include "train/objective.h"

namespace lathe::train {

// How much of a log there is.
struct LogExtent {
  int64_t lines = 0, bytes = 0;
  bool operator==(const LogExtent&) const = default;
};

class MetricsLog {
 public:
  // Appends to the file, making it if need be; `extent` is what it holds.
  explicit MetricsLog(std::filesystem::path path, LogExtent extent = {});
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // One write() for the line. Whole numbers are written without a point. ResourceError on a full disk: what was written
  // of the line is taken back.
  void append(int64_t step, const Metrics& metrics);
  void sync();  // to the disk, before a checkpoint that counts on these lines
  const LogExtent& extent() const { return extent_; }

 private:
  std::filesystem::path path_;
  LogExtent extent_;
  int descriptor_ = -1;
};

// Every whole line of a log; an absent file has none. FormatError names the line that is no object with a step.
struct LoggedLine {
  int64_t step = 0;
  Metrics metrics;
};
std::vector<LoggedLine> read_metrics(const std::filesystem::path& path);

// Drops the lines after `step` and a line that a killed process left unfinished. The kept lines keep their bytes; how
// much they are is returned.
LogExtent truncate_metrics(const std::filesystem::path& path, int64_t step);

}  // namespace lathe::train
