// Answers that follow a grammar: always whole and valid, the same bits in any batch, and bounded in time whatever the
// grammar.
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>

#include "core/error.h"
#include "core/json_value.h"
#include "core/random.h"
#include "data/tokenizer/utf8.h"
#include "serve/engine/grammar/token_masks.h"
#include "tests/serve/tiny_engine.h"
#include "tests/serve/tiny_tokenizer.h"

namespace lathe::engine {
namespace {

using json = nlohmann::ordered_json;

const char* const person = R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
  "age": {"type": "integer", "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"enum": ["a", "b"]},
  "maxItems": 3}}, "required": ["name", "age"]})";

void expect_person(const std::string& text) {
  const json value = json::parse(text, nullptr, false);
  ASSERT_TRUE(value.is_object()) << text;
  EXPECT_TRUE(value["name"].is_string()) << text;
  ASSERT_TRUE(value["age"].is_number_integer()) << text;
  EXPECT_TRUE(value["age"] >= 0 && value["age"] <= 150) << text;
  for (const auto& [key, unused] : value.items()) EXPECT_TRUE(key == "name" || key == "age" || key == "tags") << text;
  if (!value.contains("tags")) return;
  EXPECT_LE(value["tags"].size(), 3u) << text;
  for (const json& tag : value["tags"]) EXPECT_TRUE(tag == "a" || tag == "b") << text;
}

EngineOptions with_tokenizer() {
  EngineOptions options;
  options.tokenizer = tiny_tokenizer();
  return options;
}

Request request_with(std::shared_ptr<const Grammar> grammar, uint64_t seed) {
  Request request;
  request.prompt = {1, 2, static_cast<int32_t>(seed) + 3};
  request.max_tokens = 200;
  request.sampling.temperature = 1.0f;
  request.sampling.seed = seed;
  request.stop_token_ids = {tiny_end};
  request.grammar = std::move(grammar);
  return request;
}

std::string text_of(const Completion& completion) { return tiny_tokenizer()->decode(completion.tokens); }

// Until its tokens have come the answer is free and does not end; from there on it follows the grammar.
TEST(StructuredOutput, MayBeginBehindTokensThatTheModelWrites) {
  const nn::Transformer model = tiny_model(DType::f32);
  Engine engine(model, with_tokenizer());
  const auto grammar = json_schema_grammar(json::parse(person));
  size_t free = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Request request = request_with(grammar, seed);
    request.grammar_after = {40, 41};
    request.logit_bias = {{40, 4.0f}, {41, 4.5f}, {tiny_end, 5.0f}};
    request.max_tokens = 250;
    engine.add(request);
    const Completion completion = completions_of(answers_of(engine)).front();
    const auto& tokens = completion.tokens;
    const auto mark =
        std::search(tokens.begin(), tokens.end(), request.grammar_after.begin(), request.grammar_after.end());
    ASSERT_NE(mark, tokens.end());
    free += static_cast<size_t>(mark - tokens.begin());
    const std::vector<int32_t> rest(mark + 2, tokens.end());
    EXPECT_EQ(completion.finish_reason, FinishReason::stop);
    expect_person(tiny_tokenizer()->decode(rest));
  }
  EXPECT_GT(free, 10u);
}

// A token is in the mask exactly when its bytes, one by one, lead somewhere.
TEST(TokenMasks, AgreeWithEveryTokenByItself) {
  const auto tokens = std::make_shared<const TokenBytes>(*tiny_tokenizer(), 320);
  const auto grammar = json_schema_grammar(json::parse(person));
  TokenMasks masks(grammar, tokens);
  Automaton automaton(grammar);
  RandomStream random(1, RandomPurpose::test);
  TokenMasks::Position position = masks.position_after({});
  int32_t state = automaton.start();
  for (int step = 0; step < 60 && !masks.mask(position).empty; ++step) {
    const TokenMask mask = masks.mask(position).tokens;
    std::vector<int32_t> allowed;
    for (int32_t token = 0; token < 320; ++token) {
      int32_t after = tokens->bytes_of(token).empty() ? Automaton::dead : state;
      for (const char byte : tokens->bytes_of(token))
        if (after != Automaton::dead) after = automaton.next(after, static_cast<uint8_t>(byte));
      EXPECT_EQ(in_mask(mask, token), after != Automaton::dead) << token;
      if (in_mask(mask, token)) allowed.push_back(token);
    }
    const int32_t token = allowed[random.below(allowed.size())];
    for (const char byte : tokens->bytes_of(token)) state = automaton.next(state, static_cast<uint8_t>(byte));
    position = masks.advanced(position, token);
    EXPECT_EQ(masks.may_end(position), automaton.accepts(state));
  }
}

TEST(StructuredOutput, EveryAnswerIsValid) {
  const nn::Transformer model = tiny_model(DType::f32);
  const auto grammar = json_schema_grammar(json::parse(person));
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < 24; ++seed) requests.push_back(request_with(grammar, seed));
  int whole = 0;  // the others are cut by max_tokens
  for (const Completion& completion : generate(model, requests, with_tokenizer())) {
    if (completion.finish_reason != FinishReason::stop) continue;
    ++whole;
    expect_person(text_of(completion));
  }
  EXPECT_GE(whole, 12);
}

TEST(StructuredOutput, ExpressionsAndChoices) {
  const nn::Transformer model = tiny_model(DType::f32);
  const std::vector<std::string> choices{"yes", "no", "perhaps"};
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    requests.push_back(request_with(choice_grammar(choices), seed));
    requests.push_back(request_with(regex_grammar("[A-Z]{2}\\d{1,4}(é|日本)"), seed));
  }
  const auto completions = generate(model, requests, with_tokenizer());
  for (size_t i = 0; i < completions.size(); ++i) {
    EXPECT_EQ(completions[i].finish_reason, FinishReason::stop);
    const std::string text = text_of(completions[i]);
    if (i % 2 == 0) {
      EXPECT_NE(std::find(choices.begin(), choices.end(), text), choices.end()) << text;
    } else {
      EXPECT_TRUE(text.size() >= 5 && text[0] >= 'A' && text[0] <= 'Z' && (text.ends_with("é") || text.ends_with("本")))
          << text;
    }
  }
}

TEST(StructuredOutput, IsTheSameBitsInABatchAfterPreemptionAndOnADevice) {
  const auto grammar = json_schema_grammar(json::parse(person));
  for (const Device device : {Device{}, Device{DeviceKind::simt}}) {
    const nn::Transformer model = tiny_model(DType::f32, device, 256);
    std::vector<Request> requests;
    const bool cpu = device.kind == DeviceKind::cpu;  // simt takes its time
    for (uint64_t seed = 0; seed < (cpu ? 4u : 2u); ++seed) {
      requests.push_back(request_with(seed % 2 == 0 ? grammar : nullptr, seed));
      requests.back().max_tokens = cpu ? 90 : 5;
    }
    std::vector<Completion> alone;
    for (const Request& request : requests) alone.push_back(generate(model, {request}, with_tokenizer())[0]);
    expect_same(generate(model, requests, with_tokenizer()), alone);
    EngineOptions tight = with_tokenizer();
    tight.kv_cache_tokens = 128;
    tight.max_tokens_per_step = cpu ? 3 : 16;
    expect_same(generate(model, requests, tight), alone);
  }
}

TEST(StructuredOutput, MinTokensNeverLeavesNothingToDraw) {
  const nn::Transformer model = tiny_model(DType::f32);
  const std::vector<std::string> choices{"yes"};
  Request request = request_with(choice_grammar(choices), 1);
  request.min_tokens = 50;
  const Completion completion = generate(model, {request}, with_tokenizer())[0];
  EXPECT_EQ(completion.finish_reason, FinishReason::stop);
  EXPECT_EQ(text_of(completion), "yes");
}

TEST(StructuredOutput, WhatAGrammarNeedsIsAskedFor) {
  const nn::Transformer model = tiny_model(DType::f32);
  const auto grammar = json_object_grammar();
  EXPECT_THROW(generate(model, {request_with(grammar, 1)}), ConfigError) << "no tokenizer";
  Request request = request_with(grammar, 1);
  request.stop_token_ids.clear();
  EXPECT_THROW(generate(model, {request}, with_tokenizer()), ConfigError) << "no way to end";
}

// Every byte in GPT-2's alphabet but these.
std::shared_ptr<const TokenBytes> bytes_without(std::initializer_list<int> missing) {
  data::TokenizerMetadata metadata;
  metadata.model = "gpt2";
  metadata.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    data::append_code_point(token, data::byte_alphabet()[static_cast<size_t>(byte)]);
    if (std::ranges::find(missing, byte) != missing.end()) token += "x";
    metadata.tokens.push_back(token);
  }
  metadata.token_types.assign(metadata.tokens.size(), 1);
  return std::make_shared<const TokenBytes>(*data::Tokenizer::from_metadata(metadata), 256);
}

TEST(TokenMasks, BytesThatBeginCharactersMayBeMissingWhereOthersServe) {
  const auto refuses = [](const std::shared_ptr<const Grammar>& grammar, std::initializer_list<int> missing) {
    try {
      TokenMasks masks(grammar, bytes_without(missing));
    } catch (const ConfigError&) {
      return true;
    }
    return false;
  };
  const auto schema = json_schema_grammar(json::parse(person));
  EXPECT_FALSE(refuses(schema, {}));
  EXPECT_FALSE(refuses(schema, {0xF1, 0xF2, 0x04})) << "as SmolLM2's vocabulary";
  EXPECT_TRUE(refuses(schema, {0x9F})) << "a character that was begun could not go on";
  EXPECT_TRUE(refuses(schema, {'"'}));
  EXPECT_TRUE(refuses(choice_grammar(std::vector<std::string>{"ñ"}), {0xC3}));
}

// Expressions that make backtracking matchers, or automata made whole, take for ever.
TEST(StructuredOutput, HardExpressionsTakeBoundedWork) {
  const auto tokens = std::make_shared<const TokenBytes>(*tiny_tokenizer(), 320);
  for (const char* pattern : {"(a+)+b", "(a|a)*b", "(a|b)*a(a|b){200}", "(a?){500}a{500}", "((a*)*)*b", "(.*)*x"}) {
    TokenMasks masks(regex_grammar(pattern), tokens);
    std::vector<int32_t> text;
    for (int i = 0; i < 40; ++i) {
      const TokenMasks::Position position = masks.position_after(text);
      if (masks.mask(position).empty) break;
      ASSERT_TRUE(in_mask(masks.mask(position).tokens, 'a')) << pattern;
      text.push_back('a');
      masks.trim();
    }
  }
}

}  // namespace
}  // namespace lathe::engine
