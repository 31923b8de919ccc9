// A progress bar on standard error: redrawn in place on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace lathe::cli {

class Progress {
 public:
  Progress(std::string title, int64_t total);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` follows the bar: "loss 0.412  310 tok/s". Time left is estimated from the pace so far.
  void update(int64_t done, const std::string& note = {});

 private:
  void draw(bool last);
  std::string title_;
  int64_t total_, done_ = 0;
  std::string note_;
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_draw_;
};

// "1:05", "2:03:04".
std::string format_duration(double seconds);

}  // namespace lathe::cli
