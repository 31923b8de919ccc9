// One request on its way through the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "serve/engine/grammar/token_masks.h"
#include "serve/engine/prefix_cache.h"
#include "serve/engine/prompt_lookup.h"
#include "serve/engine/prompt_reading.h"
#include "serve/engine/request.h"
#include "serve/engine/state_slots.h"

namespace lathe::engine {

struct Sequence {
  RequestId id = 0;
  Request request;              // its prompt has moved to `tokens`
  std::vector<int32_t> tokens;  // the prompt, then what was generated
  size_t prompt_length = 0;
  std::shared_ptr<const PrefixScope> scope;  // the adapter, settled when the request came, "" for none; and the salt

  std::vector<int32_t> block_table;             // its pages, in order
  int64_t cached = 0;                           // tokens whose keys and values are in pages
  int64_t findable = 0;                         // of its pages, the first ones, that others can find
  int32_t state = no_state;                     // its own, while it runs, where the model's layers keep one
  std::vector<int64_t> state_marks;             // lengths, ascending, after which its state is remembered for others
  bool shares = true;                           // false: its pages are out of date, and nobody may find them
  std::optional<int64_t> prompt_tokens_cached;  // that were at hand when it first ran

  std::shared_ptr<TokenMasks> masks;         // of the request's grammar; null where it has none
  std::optional<size_t> grammar_begin = {};  // in the output, once it is known; nothing before has to follow it
  TokenMasks::Position position = {};        // of the output from there on

  bool started = false;          // it has run
  PromptReading prompt_reading;  // as far as it has come

  std::vector<int32_t> guesses;  // of what follows `tokens`, for the step that is scheduled
  GuessingRecord guessing;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  const std::string& adapter() const { return scope->adapter; }
  std::span<const int32_t> prompt() const { return std::span(tokens).first(prompt_length); }
  std::span<const int32_t> output() const { return std::span(tokens).subspan(prompt_length); }
  // Whether its prompt's hidden states are wanted, so that they must be computed even where keys and values are at
  // hand.
  bool reads_prompt() const {
    return (request.prompt_logprobs && output().empty()) || request.pooling == Pooling::mean;
  }
  // Whether it runs before `other` where there is not room for both.
  bool before(const Sequence& other) const {
    return request.priority != other.request.priority ? request.priority < other.request.priority : id < other.id;
  }
};

}  // namespace lathe::engine
