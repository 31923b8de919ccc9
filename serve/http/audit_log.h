// A line of JSON for every request: who, when, what for, how it ended. The text of prompts only where it is asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "serve/http/metrics.h"

namespace lathe::http {

class AuditLog {
 public:
  // Appends to the file; empty: nothing is written. ResourceError where it cannot be opened.
  explicit AuditLog(const std::filesystem::path& file, bool with_text = false);
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  bool enabled() const { return descriptor_ >= 0; }
  bool with_text() const { return with_text_; }
  void write(std::string line);

 private:
  int descriptor_ = -1;
  bool with_text_;
  std::mutex mutex_;
};

// What is known of one request so far; written when it is let go.
struct AuditEntry {
  explicit AuditEntry(AuditLog& to) : log(to) {}
  ~AuditEntry();
  AuditEntry(const AuditEntry&) = delete;
  AuditEntry& operator=(const AuditEntry&) = delete;

  AuditLog& log;
  Clock::time_point arrived = Clock::now();
  std::string request_id, key, remote, endpoint, model, text;
  int64_t prompt_tokens = 0, completion_tokens = 0;
  unsigned status = 0;  // 499: the client went away
};

}  // namespace lathe::http
