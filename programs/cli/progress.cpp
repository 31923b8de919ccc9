#include "programs/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace lathe::cli {
namespace {

constexpr int bar_cells = 24;
// A log file wants few lines, a person watching one still wants a sign of life.
constexpr double seconds_between_lines = 10.0, seconds_between_redraws = 0.1;

std::string bar(double share) {
  const int filled = static_cast<int>(share * bar_cells);
  std::string cells;
  for (int i = 0; i < bar_cells; ++i) cells += i < filled ? "━" : "─";
  return cells;
}

}  // namespace

std::string format_duration(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

Progress::Progress(std::string title, int64_t total)
    : title_(std::move(title)),
      total_(std::max<int64_t>(total, 1)),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_draw_(start_) {}

Progress::~Progress() {
  if (drawn_ && terminal_) std::fputc('\n', stderr);
}

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  const auto now = std::chrono::steady_clock::now();
  const double since = std::chrono::duration<double>(now - last_draw_).count();
  const bool last = done_ >= total_;
  if (!last && drawn_ && since < (terminal_ ? seconds_between_redraws : seconds_between_lines)) return;
  last_draw_ = now;
  draw(last);
  drawn_ = true;
}

void Progress::draw(bool last) {
  const double elapsed = std::chrono::duration<double>(last_draw_ - start_).count();
  const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  std::string time = format_duration(elapsed);
  if (!last && done_ > 0) time += fmt::format(" < {}", format_duration(elapsed * (1 - share) / share));
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s %s %3.0f%% %ld/%ld  %s  %s", title_.c_str(), bar(share).c_str(), share * 100,
                 static_cast<long>(done_), static_cast<long>(total_), time.c_str(), note_.c_str());
  } else {
    std::fprintf(stderr, "%s %ld/%ld  %s  %s\n", title_.c_str(), static_cast<long>(done_), static_cast<long>(total_),
                 time.c_str(), note_.c_str());
  }
  std::fflush(stderr);
}

}  // namespace lathe::cli
