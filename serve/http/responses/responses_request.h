// The body of /v1/responses. Nothing is kept between requests: a conversation comes whole, in `input`.
#pragma once

#include "core/json_value.h"
#include "serve/http/chat_request.h"

namespace lathe::http {

struct ResponsesRequest {
  ChatRequest chat;              // what the input, the instructions, text.format and the tools amount to
  nlohmann::ordered_json asked;  // the fields that a response repeats
};

// ApiError for the first field that is wrong, or that needs what is not here: stored responses, the provider's tools.
ResponsesRequest read_responses_request(const nlohmann::ordered_json& body, int64_t vocabulary);

}  // namespace lathe::http
