// The conversation in a request of the Responses API, as chat templates read one.
#pragma once

#include "core/json_value.h"
#include "serve/http/fields.h"

namespace lathe::http {

// `instructions` as the system's message, then `input`: a text is a user's message; of a list, messages, calls of
// functions (joined with the assistant's message before them) and their outputs. What a model thought goes to the
// assistant's message or call behind it; whether a template shows it is the template's. ApiError for items of other
// types.
nlohmann::ordered_json read_input(const Fields& fields);

}  // namespace lathe::http
