// What a request says that its answer may be.
#pragma once

#include <memory>

#include "serve/engine/grammar/grammar.h"
#include "serve/http/fields.h"

namespace lathe::http {

// OpenAI's response_format (text, json_object, json_schema), or vLLM's structured_outputs (json, regex, choice) and
// their older names guided_json, guided_regex, guided_choice. Null where the answer is free. ApiError 400 with the
// field for a grammar that cannot be understood, or two of them.
std::shared_ptr<const engine::Grammar> read_grammar(const Fields& fields);

// The Responses API's text.format: {"type": "text" | "json_object" | "json_schema", "schema"}.
std::shared_ptr<const engine::Grammar> read_text_format(const nlohmann::ordered_json& format);

// TGI's {"type": "json" | "json_object" | "regex", "value"}.
std::shared_ptr<const engine::Grammar> read_tgi_grammar(const Fields& parameters);

}  // namespace lathe::http
