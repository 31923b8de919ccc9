// A tokenizer for the tiny Llama's 320 tokens: every byte, pieces of JSON, and an end.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

namespace lathe::engine {

inline constexpr int32_t tiny_end = 319;

inline std::string in_alphabet(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) data::append_code_point(text, data::byte_alphabet()[static_cast<uint8_t>(byte)]);
  return text;
}

inline std::shared_ptr<const data::Tokenizer> tiny_tokenizer() {
  data::TokenizerMetadata metadata;
  metadata.model = "gpt2";
  metadata.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte)
    metadata.tokens.push_back(in_alphabet(std::string(1, static_cast<char>(byte))));
  for (const char* piece :
       {"{\"", "\":", "\",", "\"}", ", ", ": ",  "tr",   "true", "false", "null", "na",   "name", "ag", "age",
        "[1",  "],",  "}]",  "}}",  "12", "123", "\n  ", "\\\"", "\\n",   "é",    "日本", "ab",   "abc"})
    metadata.tokens.push_back(in_alphabet(piece));
  while (metadata.tokens.size() < 319)
    metadata.tokens.push_back("<unused" + std::to_string(metadata.tokens.size()) + ">");
  metadata.tokens.push_back("<end>");
  metadata.token_types.assign(320, static_cast<int32_t>(data::TokenType::normal));
  for (size_t i = 256 + 27; i < 320; ++i) metadata.token_types[i] = static_cast<int32_t>(data::TokenType::control);
  metadata.eos_id = tiny_end;
  return data::Tokenizer::from_metadata(metadata);
}

}  // namespace lathe::engine
