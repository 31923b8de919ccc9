// From tokens back to text.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::data {

// tokenizer.json's "decoder", in the order in which its steps always come.
struct DecoderSettings {
  bool byte_level = false;  // tokens are bytes in GPT-2's alphabet
  std::vector<std::pair<std::string, std::string>> replacements;
  std::string metaspace;       // what stands for a space, and
  bool metaspace_trim = true;  // whether the first token's are dropped
  bool byte_fallback = false;  // <0xNN> is a byte
  std::string strip;           // this character, up to strip_count times, is dropped at the start
  size_t strip_count = 0;
  std::string continuing_prefix;  // WordPiece: not empty, what a token begins with that goes on with a word
  bool clean_up = false;          // WordPiece: no space before punctuation and within contractions
  std::string separator;          // between tokens (a tokenizer without a decoder: a space)
};

DecoderSettings read_decoder(const nlohmann::ordered_json& description, const std::string& file);

// What a token adds to a text that it does not begin: any bytes, a part of a character for example.
std::string bytes_of_token(std::string_view token, const DecoderSettings& settings);

// Text that grows token by token. Bytes that may still become a character wait in `pending`.
class Decoding {
 public:
  explicit Decoding(const DecoderSettings& settings) : settings_(settings), strips_left_(settings.strip_count) {}
  void push(std::string_view token, std::string& text);
  void finish(std::string& text);

 private:
  void emit(std::string_view piece, std::string& text);
  void flush_bytes(std::string& text);

  const DecoderSettings& settings_;
  size_t strips_left_;
  bool first_token_ = true;
  std::string pending_;
};

}  // namespace lathe::data
