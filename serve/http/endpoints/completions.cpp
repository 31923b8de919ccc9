// POST /v1/completions
#include <algorithm>
#include <ctime>

#include "serve/http/completion_request.h"
#include "serve/http/generation.h"
#include "serve/http/prompt_tokens.h"

namespace lathe::http {
namespace {

std::string text_of(const text::ModelText& text, const Prompt& prompt) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) return text.tokenizer->decode(*ids);
  return std::get<std::string>(prompt);
}

}  // namespace

void completions(const Call& call) {
  const LoadedModel& loaded = call.service.loaded();
  const CompletionRequest request = read_completion_request(parse_body(call.request().body), loaded.text.vocab_size);
  if (request.prompts.size() * static_cast<size_t>(request.settings.n) > most_prompts)
    throw bad_field("n", "times the number of prompts: expected up to " + std::to_string(most_prompts));
  GenerationPlan plan;
  plan.settings = request.settings;
  plan.prompt_logprobs = request.settings.prompt_logprobs;
  const bool scored = request.echo && request.settings.top_logprobs;
  if (scored) plan.prompt_logprobs = std::max(*request.settings.top_logprobs, plan.prompt_logprobs.value_or(0));
  plan.adapter = call.service.adapter_of(request.settings.model);
  const bool audited = call.audit->log.with_text();
  std::vector<Echo> echoes;
  for (const Prompt& prompt : request.prompts) {
    plan.prompts.push_back(prompt_tokens(loaded.text, prompt));
    const std::string text = request.echo || audited ? text_of(loaded.text, prompt) : std::string();
    if (audited) call.audit->text += text;
    Echo echo;
    if (request.echo) echo.text = text;
    if (scored) echo.tokens = plan.prompts.back();
    echoes.insert(echoes.end(), static_cast<size_t>(request.settings.n), echo);
  }
  const std::string model = plan.adapter.empty() ? call.service.options.model_name : plan.adapter;
  plan.format = completion_format({new_id("cmpl-"), std::time(nullptr), model, loaded.text.tokenizer}, request.settings,
                                  std::move(echoes));
  call.audit->model = model;
  start_generation(call, std::move(plan));
}

}  // namespace lathe::http
