#include "serve/http/chat_plan.h"

#include "serve/http/prompt_tokens.h"
#include "serve/http/text_marks.h"

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

// Thoughts between marks. A grammar is for what comes after them, where the prompt has begun one.
void plan_marked_reasoning(const ChatPrompt& prompt, const data::Tokenizer& tokenizer, ChatPlan& chat) {
  AnswerReading& reading = chat.reading;
  const ReasoningMarks& marks = *reading.reasoning;
  reading.begins_thinking = prompt.text.substr(0, without_blanks_at_end(prompt.text)).ends_with(marks.open);
  GenerationSettings& settings = chat.generation.settings;
  for (const std::string_view mark : {marks.open, marks.close})
    if (const auto id = tokenizer.token_id(mark); id && tokenizer.is_special(*id)) settings.shown_tokens.push_back(*id);
  if (!settings.grammar || !reading.begins_thinking) return;
  settings.grammar_after = end_of_reasoning(marks, tokenizer);
  reading.begins_thinking = !settings.grammar_after.empty();
}

// Calls that must be made come at once; another form is that of the last message.
void plan_harmony(const ChatRequest& request, const data::Tokenizer& tokenizer, ChatPlan& chat) {
  GenerationSettings& settings = chat.generation.settings;
  settings.shown_tokens = mark_tokens(ToolFormat::harmony, tokenizer);
  for (const char* end : {"<|call|>", "<|return|>"})
    if (const auto id = tokenizer.token_id(end)) settings.stop_token_ids.push_back(*id);
  if (settings.grammar && !(request.tools && request.tools->must_call))
    settings.grammar_after = end_of_harmony_reasoning(tokenizer);
}

}  // namespace

ChatPlan plan_chat(const Call& call, const ChatRequest& request) {
  const LoadedModel& loaded = call.service.loaded();
  ChatPlan chat;
  GenerationPlan& plan = chat.generation;
  plan.settings = request.settings;
  plan.prompt_logprobs = request.settings.prompt_logprobs;
  plan.adapter = call.service.adapter_of(request.settings.model);
  const data::Tokenizer& tokenizer = *loaded.text.tokenizer;
  ChatPrompt prompt = chat_prompt(loaded.text, request);
  chat.reading.calls = plan_calls(request, tokenizer, plan);
  chat.reading.shows_reasoning = request.include_reasoning;
  if (call.service.options.separate_reasoning) {
    chat.reading.harmony = speaks_harmony(tokenizer);
    if (!chat.reading.harmony) chat.reading.reasoning = reasoning_marks_of(tokenizer);
    if (chat.reading.harmony) plan_harmony(request, tokenizer, chat);
    if (chat.reading.reasoning) plan_marked_reasoning(prompt, tokenizer, chat);
  }
  plan.prompts = {std::move(prompt.tokens)};
  chat.model = plan.adapter.empty() ? call.service.options.model_name : plan.adapter;
  call.audit->model = chat.model;
  if (call.audit->log.with_text()) call.audit->text = request.messages.dump();
  return chat;
}

}  // namespace lathe::http
