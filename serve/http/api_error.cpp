#include "serve/http/api_error.h"

#include "core/json_value.h"

namespace lathe::http {

using nlohmann::ordered_json;

ApiError::ApiError(unsigned status, const std::string& message, std::string param, std::string code)
    : Error(message), status_(status), param_(std::move(param)), code_(std::move(code)) {}

ApiError ApiError::after(int64_t seconds) && {
  retry_after_ = seconds;
  return std::move(*this);
}

ApiError ApiError::allowing(std::string methods) && {
  allow_ = std::move(methods);
  return std::move(*this);
}

std::string ApiError::type() const {
  switch (status_) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable_error";
    default: return status_ < 500 ? "invalid_request_error" : "server_error";
  }
}

std::string ApiError::body(ErrorShape shape) const {
  if (shape == ErrorShape::tgi) {
    const char* kind = status_ == 429 ? "overloaded" : status_ < 500 ? "validation" : "generation";
    return ordered_json{{"error", what()}, {"error_type", kind}}.dump(-1, ' ', false,
                                                                      ordered_json::error_handler_t::replace);
  }
  ordered_json error{{"message", what()}, {"type", type()}, {"param", nullptr}, {"code", nullptr}};
  if (!param_.empty()) error["param"] = param_;
  if (!code_.empty()) error["code"] = code_;
  return ordered_json{{"error", error}}.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

Reply ApiError::reply(ErrorShape shape) const {
  Reply reply{.status = status_, .body = body(shape)};
  if (retry_after_ > 0) reply.headers.emplace_back("Retry-After", std::to_string(retry_after_));
  if (!allow_.empty()) reply.headers.emplace_back("Allow", allow_);
  if (status_ == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

ApiError bad_field(const std::string& param, const std::string& reason) {
  return ApiError(400, param + ": " + reason, param);
}

}  // namespace lathe::http
