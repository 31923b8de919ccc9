// POST /v1/chat/completions
#include <ctime>

#include "serve/http/chat_plan.h"

namespace lathe::http {

void chat_completions(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  const ChatRequest request = read_chat_request(parse_body(call.request().body), loaded.text.vocab_size);
  auto [plan, reading, model] = plan_chat(call, request);
  plan.format =
      chat_format({new_id("chatcmpl-"), std::time(nullptr), model, loaded.text.tokenizer}, request.settings, reading);
  start_generation(call, std::move(plan));
}

}  // namespace lathe::http
