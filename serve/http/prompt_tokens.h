// From what a client wrote to token ids. What came from a client never becomes a control token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serve/http/chat_request.h"
#include "serve/http/completion_request.h"
#include "text/model_text.h"

namespace lathe::http {

struct ChatPrompt {
  std::string text;  // as the template wrote it
  std::vector<int32_t> tokens;
};
// ApiError 400 where the model has no chat template, or its template refuses the messages or needs too long for them.
ChatPrompt chat_prompt(const text::ModelText& text, const ChatRequest& request);

// A text's ids with what the model expects around it (BOS); ids stay as they are.
std::vector<int32_t> prompt_tokens(const text::ModelText& text, const Prompt& prompt);

}  // namespace lathe::http
