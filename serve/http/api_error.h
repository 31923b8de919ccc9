// An answer that is an error, and how OpenAI's clients and TGI's expect to read it.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"
#include "serve/http/exchange.h"

namespace lathe::http {

enum class ErrorShape { openai, tgi };

class ApiError : public Error {
 public:
  // `param` is the field at fault, empty where it is none; `code` a word for programs, empty where OpenAI has none.
  ApiError(unsigned status, const std::string& message, std::string param = {}, std::string code = {});
  ApiError after(int64_t seconds) &&;         // Retry-After
  ApiError allowing(std::string methods) &&;  // Allow, of a 405

  unsigned status() const { return status_; }
  const std::string& param() const { return param_; }
  // OpenAI's word for the status: invalid_request_error, authentication_error, …
  std::string type() const;
  // {"error": {"message", "type", "param", "code"}}, or TGI's {"error": message, "error_type"}.
  std::string body(ErrorShape shape = ErrorShape::openai) const;
  Reply reply(ErrorShape shape = ErrorShape::openai) const;

 private:
  unsigned status_;
  std::string param_, code_;
  int64_t retry_after_ = 0;
  std::string allow_;
};

// 400 for a field of the request: "temperature: expected …".
ApiError bad_field(const std::string& param, const std::string& reason);

}  // namespace lathe::http
