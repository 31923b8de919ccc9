// POST /v1/chat/completions
#include <ctime>

#include "serve/http/chat_request.h"
#include "serve/http/generation.h"
#include "serve/http/prompt_tokens.h"

namespace lathe::http {

void chat_completions(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  const nlohmann::ordered_json body = parse_body(call.request().body);
  const ChatRequest request = read_chat_request(body, loaded.text.vocab_size);
  GenerationPlan plan;
  plan.settings = request.settings;
  plan.adapter = call.service.adapter_of(request.settings.model);
  plan.prompts = {chat_tokens(loaded.text, request)};
  const std::string model = plan.adapter.empty() ? call.service.options.model_name : plan.adapter;
  plan.format = chat_format({new_id("chatcmpl"), std::time(nullptr), model, loaded.text.tokenizer}, request.settings);
  call.audit->model = model;
  if (call.audit->log.with_text()) call.audit->text = request.messages.dump();
  start_generation(call, std::move(plan));
}

}  // namespace lathe::http
