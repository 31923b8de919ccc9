// A chat on its way to the engine, whichever endpoint it came by.
#pragma once

#include <optional>
#include <string>

#include "serve/http/answer_parser.h"
#include "serve/http/chat_request.h"
#include "serve/http/generation.h"

namespace lathe::http {

struct ChatPlan {
  GenerationPlan generation;  // without a format
  AnswerReading reading;      // how the answer is told apart
  std::string model;          // as answers call it
};

// ApiError for a model that is none, and for what the template cannot render. Tells the audit the model and the text.
ChatPlan plan_chat(const Call& call, const ChatRequest& request);

}  // namespace lathe::http
