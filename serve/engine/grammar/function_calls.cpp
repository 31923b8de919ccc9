// Calls of functions as a grammar: the texts that a model's family puts around them, and a schema for each function.
#include <string>
#include <string_view>
#include <vector>

#include "core/json_value.h"
#include "serve/engine/grammar/call_members.h"
#include "serve/engine/grammar/json_schema.h"

namespace lathe::engine {
namespace {

using Part = GrammarBuilder::Part;
using json = nlohmann::ordered_json;

// The text, in which control tokens stand as themselves.
Part marked_text(GrammarBuilder& builder, std::string_view text, const std::vector<std::string>& control_tokens) {
  std::vector<Part> parts{builder.empty()};
  while (!text.empty()) {
    size_t first = text.size();
    const std::string* token = nullptr;
    for (const std::string& each : control_tokens)
      if (const size_t place = text.find(each); place < first) {
        first = place;
        token = &each;
      }
    parts.push_back(builder.text(text.substr(0, first)));
    if (token != nullptr) parts.push_back(builder.control_token(*token));
    text.remove_prefix(token != nullptr ? first + token->size() : text.size());
  }
  return builder.sequence(parts);
}

json described(const CallForm& form) {
  json source = json::array({form.first, form.open, form.after_name, form.close, form.between, form.last});
  source.push_back(form.control_tokens);
  if (form.members) source.push_back({form.members->open, form.members->after_name, form.members->close});
  return source;
}

}  // namespace

std::shared_ptr<const Grammar> function_calls_grammar(std::span<const CallableFunction> functions, const CallForm& form,
                                                      CallCount count) {
  GrammarBuilder builder("parameters");
  const int32_t root = builder.new_rule(), call = builder.new_rule();
  json source = described(form);
  source.push_back(count == CallCount::one);
  const auto text = [&](const std::string& some) { return marked_text(builder, some, form.control_tokens); };
  std::vector<Part> calls;
  for (const CallableFunction& function : functions) {
    const Part head = builder.sequence({builder.text(function.name), text(form.after_name)});
    const Part arguments = form.members ? call_members(builder, *function.parameters, *form.members)
                                        : builder.call(define_schema(builder, *function.parameters));
    calls.push_back(builder.sequence({head, arguments}));
    source.push_back(json::array({function.name, *function.parameters}));
  }
  builder.define(call, builder.sequence({text(form.open), builder.any_of(calls), text(form.close)}));
  const auto another = [&] { return builder.sequence({text(form.between), builder.call(call)}); };
  const Part more = count == CallCount::one ? builder.empty() : builder.repeat(0, -1, another);
  builder.define(root, builder.sequence({text(form.first), builder.call(call), more, text(form.last)}));
  return builder.finish("function_calls " + source.dump());
}

}  // namespace lathe::engine
