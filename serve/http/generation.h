// A request on its way through the engine: sequences out, an answer or a stream back.
#pragma once

#include <memory>
#include <vector>

#include "serve/http/answer_format.h"
#include "serve/http/service.h"

namespace lathe::http {

struct GenerationPlan {
  std::vector<std::vector<int32_t>> prompts;  // settings.n choices each
  GenerationSettings settings;
  std::optional<int64_t> prompt_logprobs = {};  // the format wants them, with so many alternatives
  std::string adapter;
  std::unique_ptr<AnswerFormat> format;
};

// Submits and answers on the call's exchange. Choice i of a prompt draws with seed + i. A client that goes away, or a
// choice that has met a stop string, frees its pages at once. ApiError before anything is answered.
void start_generation(const Call& call, GenerationPlan plan);

// "chatcmpl-…", "resp_…": a prefix and 24 random hexadecimal digits.
std::string new_id(const char* prefix);

}  // namespace lathe::http
