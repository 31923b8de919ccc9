// The body of /v1/completions.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "serve/http/generation_settings.h"

namespace lathe::http {

inline constexpr size_t most_prompts = 256;

// A text, or its token ids.
using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  GenerationSettings settings;
  std::vector<Prompt> prompts;
  bool echo = false;  // the prompt stands before each answer; max_tokens 0: nothing does after it
};

// ApiError for the first field that is wrong.
CompletionRequest read_completion_request(const nlohmann::ordered_json& body, int64_t vocabulary);

// A string, a list of strings, a list of token ids, or a list of such lists; none of them empty.
std::vector<Prompt> read_prompts(const Fields& fields, const char* key, int64_t vocabulary);

}  // namespace lathe::http
