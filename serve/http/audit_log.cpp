#include "serve/http/audit_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <system_error>

#include "core/error.h"
#include "core/json_value.h"

namespace lathe::http {

AuditLog::AuditLog(const std::filesystem::path& file, bool with_text) : with_text_(with_text) {
  if (file.empty()) return;
  descriptor_ = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor_ < 0)
    throw ResourceError(file.string() + " cannot be opened: " + std::generic_category().message(errno));
}

AuditLog::~AuditLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void AuditLog::write(std::string line) {
  if (descriptor_ < 0) return;
  line += '\n';
  const std::lock_guard lock(mutex_);
  for (size_t done = 0; done < line.size();) {
    const ssize_t written = ::write(descriptor_, line.data() + done, line.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // a full disk ends no request
    done += static_cast<size_t>(written);
  }
}

AuditEntry::~AuditEntry() {
  if (!log.enabled()) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - arrived).count();
  nlohmann::ordered_json line{{"time", fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)))},
                              {"request_id", request_id},
                              {"key", key},
                              {"remote", remote},
                              {"endpoint", endpoint},
                              {"model", model},
                              {"prompt_tokens", prompt_tokens},
                              {"completion_tokens", completion_tokens},
                              {"status", status},
                              {"seconds", seconds}};
  if (log.with_text()) line["text"] = text;
  log.write(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace lathe::http
