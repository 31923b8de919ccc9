// POST /v1/chat/completions
#include <ctime>

#include "serve/http/chat_request.h"
#include "serve/http/generation.h"
#include "serve/http/prompt_tokens.h"

namespace lathe::http {
namespace {

// What calls of functions ask of the generation; their settings for whoever reads the answer.
std::optional<ToolCallSettings> plan_calls(const ChatRequest& request, const data::Tokenizer& tokenizer,
                                           GenerationPlan& plan) {
  if (!request.tools) return std::nullopt;
  ToolCallSettings calls{
      .format = tool_format_of(tokenizer), .names = request.tools->names, .parallel = request.tools->parallel};
  plan.settings.shown_tokens = mark_tokens(calls.format, tokenizer);
  if (request.tools->must_call) {
    const ForcedCalls forced = forced_calls(calls.format, tokenizer);
    plan.settings.grammar = tool_grammar(*request.tools, forced, calls.format);
    plan.prompts[0].insert(plan.prompts[0].end(), forced.opening.begin(), forced.opening.end());
    calls.opened = !forced.opening.empty();
  }
  return calls;
}

}  // namespace

void chat_completions(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  const nlohmann::ordered_json body = parse_body(call.request().body);
  const ChatRequest request = read_chat_request(body, loaded.text.vocab_size);
  GenerationPlan plan;
  plan.settings = request.settings;
  plan.prompt_logprobs = request.settings.prompt_logprobs;
  plan.adapter = call.service.adapter_of(request.settings.model);
  plan.prompts = {chat_tokens(loaded.text, request)};
  const auto calls = plan_calls(request, *loaded.text.tokenizer, plan);
  const std::string model = plan.adapter.empty() ? call.service.options.model_name : plan.adapter;
  plan.format =
      chat_format({new_id("chatcmpl"), std::time(nullptr), model, loaded.text.tokenizer}, request.settings, calls);
  call.audit->model = model;
  if (call.audit->log.with_text()) call.audit->text = request.messages.dump();
  start_generation(call, std::move(plan));
}

}  // namespace lathe::http
