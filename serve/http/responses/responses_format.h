// Answers of /v1/responses: a response whole, or the events that build it.
#pragma once

#include <memory>

#include "serve/http/answer_format.h"

namespace lathe::http {

// `asked`: the request's fields that a response repeats.
std::unique_ptr<AnswerFormat> responses_format(AnswerHead head, const GenerationSettings& settings,
                                               const AnswerReading& reading, nlohmann::ordered_json asked);

}  // namespace lathe::http
