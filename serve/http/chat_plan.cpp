#include "serve/http/chat_plan.h"

#include "serve/http/prompt_tokens.h"

namespace lathe::http {
namespace {

// What calls of functions ask of the generation; their settings for whoever reads the answer.
std::optional<ToolCallSettings> plan_calls(const ChatRequest& request, const data::Tokenizer& tokenizer,
                                           GenerationPlan& plan) {
  if (!request.tools) return std::nullopt;
  ToolCallSettings calls{.format = tool_format_of(tokenizer),
                         .names = request.tools->names,
                         .texts = text_members(*request.tools),
                         .parallel = request.tools->parallel};
  plan.settings.shown_tokens = mark_tokens(calls.format, tokenizer);
  if (request.tools->must_call)
    plan.settings.grammar = tool_grammar(*request.tools, forced_form(calls.format, tokenizer), calls.format);
  return calls;
}

}  // namespace

ChatPlan plan_chat(const Call& call, const ChatRequest& request) {
  const LoadedModel& loaded = call.service.loaded();
  ChatPlan chat;
  GenerationPlan& plan = chat.generation;
  plan.settings = request.settings;
  plan.prompt_logprobs = request.settings.prompt_logprobs;
  plan.adapter = call.service.adapter_of(request.settings.model);
  plan.prompts = {chat_tokens(loaded.text, request)};
  chat.calls = plan_calls(request, *loaded.text.tokenizer, plan);
  chat.model = plan.adapter.empty() ? call.service.options.model_name : plan.adapter;
  call.audit->model = chat.model;
  if (call.audit->log.with_text()) call.audit->text = request.messages.dump();
  return chat;
}

}  // namespace lathe::http
