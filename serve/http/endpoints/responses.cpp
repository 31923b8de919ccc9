// POST /v1/responses
#include <ctime>

#include "serve/http/chat_plan.h"
#include "serve/http/responses/responses_format.h"
#include "serve/http/responses/responses_request.h"

namespace lathe::http {

void responses(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  ResponsesRequest request = read_responses_request(parse_body(call.request().body), loaded.text.vocab_size);
  auto [plan, reading, model] = plan_chat(call, request.chat);
  plan.format = responses_format({new_id("resp_"), std::time(nullptr), model, loaded.text.tokenizer},
                                 request.chat.settings, reading, std::move(request.asked));
  start_generation(call, std::move(plan));
}

}  // namespace lathe::http
