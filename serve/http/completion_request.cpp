#include "serve/http/completion_request.h"

#include <fmt/format.h>

#include "core/json.h"
#include "core/json_value.h"
#include "serve/http/api_error.h"

namespace lathe::http {

using nlohmann::ordered_json;

std::vector<Prompt> read_prompts(const Fields& fields, const char* key, int64_t vocabulary) {
  constexpr const char* expected = "a string, a list of strings, a list of token ids, or a list of such lists";
  const ordered_json& value = fields.required(key, expected);
  const std::string name = fields.name_of(key);
  const auto ids_of = [&](const ordered_json& list) {
    const ordered_json holder{{key, list}};
    return Fields(holder).token_ids(key, SIZE_MAX, vocabulary);
  };
  std::vector<Prompt> prompts;
  if (value.is_string()) {
    prompts.emplace_back(value.get<std::string>());
  } else if (value.is_array() && !value.empty() && value[0].is_number()) {
    prompts.emplace_back(ids_of(value));
  } else if (value.is_array() && !value.empty() && value.size() <= most_prompts) {
    for (const ordered_json& item : value) {
      if (item.is_string()) {
        prompts.emplace_back(item.get<std::string>());
      } else if (item.is_array()) {
        prompts.emplace_back(ids_of(item));
      } else {
        throw bad_field(name, fmt::format("expected {}, found {} in the list", expected, json_excerpt(item)));
      }
    }
  } else {
    throw bad_field(name,
                    fmt::format("expected {} (of 1 to {}), found {}", expected, most_prompts, json_excerpt(value)));
  }
  for (const Prompt& prompt : prompts)
    if (std::visit([](const auto& some) { return some.empty(); }, prompt)) throw bad_field(name, "is empty");
  return prompts;
}

CompletionRequest read_completion_request(const ordered_json& body, int64_t vocabulary) {
  const Fields fields(body);
  CompletionRequest request;
  request.prompts = read_prompts(fields, "prompt", vocabulary);
  request.settings = read_generation_settings(fields, vocabulary);
  request.echo = fields.boolean("echo").value_or(false);
  request.settings.max_tokens = fields.integer("max_tokens", request.echo ? 0 : 1, most_max_tokens).value_or(16);
  request.settings.top_logprobs = fields.integer("logprobs", 0, most_alternatives);
  if (const auto best_of = fields.integer("best_of", 1, most_choices); best_of && *best_of != request.settings.n)
    throw bad_field("best_of", "expected the same number as n: this server ranks no answers");
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty())
    throw bad_field("suffix", "this server fills no gaps; leave the field out");
  return request;
}

}  // namespace lathe::http
