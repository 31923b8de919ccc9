// Calls of functions as a grammar: the texts that a model's family puts around them, and a schema for each function.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "serve/engine/grammar/json_schema.h"

namespace lathe::engine {

using Part = GrammarBuilder::Part;
using json = nlohmann::ordered_json;

std::shared_ptr<const Grammar> function_calls_grammar(std::span<const CallableFunction> functions, const CallForm& form,
                                                      CallCount count) {
  GrammarBuilder builder("parameters");
  const int32_t root = builder.new_rule(), call = builder.new_rule();
  json source = json::array({form.arguments_key, form.first, form.open, form.close, form.between, form.last});
  source.push_back(count == CallCount::one);
  std::vector<Part> calls;
  for (const CallableFunction& function : functions) {
    const Part head =
        builder.text("{\"name\": " + json(function.name).dump() + ", " + json(form.arguments_key).dump() + ": ");
    calls.push_back(
        builder.sequence({head, builder.call(define_schema(builder, *function.parameters)), builder.text("}")}));
    source.push_back(json::array({function.name, *function.parameters}));
  }
  builder.define(call, builder.sequence({builder.text(form.open), builder.any_of(calls), builder.text(form.close)}));
  const auto another = [&] { return builder.sequence({builder.text(form.between), builder.call(call)}); };
  const Part more = count == CallCount::one ? builder.empty() : builder.repeat(0, -1, another);
  builder.define(root, builder.sequence({builder.text(form.first), builder.call(call), more, builder.text(form.last)}));
  return builder.finish("function_calls " + source.dump());
}

}  // namespace lathe::engine
