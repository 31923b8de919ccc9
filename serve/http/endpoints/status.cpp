// GET /health, /metrics, /version and the page.

#include "core/json_value.h"
#include "serve/http/openapi.h"
#include "serve/http/page.h"
#include "serve/http/service.h"

namespace lathe::http {

using nlohmann::ordered_json;

// 200 where an answer is to be expected; else 503, and why.
void health(const Call& call) {
  const auto unhealthy = [&](const std::string& status) {
    call.reply(
        Reply{.status = 503, .body = ordered_json{{"status", status}}.dump(), .headers = {{"Retry-After", "1"}}});
  };
  if (call.service.draining()) return unhealthy("shutting down");
  if (call.service.engine.model() == nullptr) return unhealthy("loading");
  if (const std::string trouble = call.service.engine.trouble(); !trouble.empty()) return unhealthy(trouble);
  call.reply(ordered_json{{"status", "ok"}});
}

void show_metrics(const Call& call) {
  call.reply(Reply{.body = call.service.metrics.text(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

void show_version(const Call& call) { call.reply(ordered_json{{"version", "0.1.0"}}); }

void show_openapi(const Call& call) { call.reply(Reply{.body = std::string(openapi_document())}); }

void show_page(const Call& call) {
  const PageFile* file = page_file(call.request().path);
  call.reply(Reply{.body = std::string(file->text),
                   .content_type = std::string(file->content_type),
                   .headers = {{"Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'"},
                               {"X-Content-Type-Options", "nosniff"},
                               {"Cache-Control", "no-cache"}}});
}

}  // namespace lathe::http
