// Text to token ids and back, in exact agreement with Hugging Face's tokenizers library.
//
// A tokenizer is a pipeline: added tokens are cut out of the text, the rest is normalised, split into words
// (pre-tokeniser), and each word is cut into tokens by a model: byte pair encoding of both kinds, byte-level (GPT-2,
// Llama 3, Qwen, SmolLM) and SentencePiece's characters with byte fallback (Llama 2, Mistral, Gemma), Unigram, or
// WordPiece.
// A Tokenizer is immutable: any number of threads may use one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer_metadata.h"

namespace lathe::data {

class Decoding;

// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

// Whether the text "<|im_end|>" is that control token or ten characters. What a person typed is characters.
enum class SpecialTokens { as_text, recognise };

// Whether the tokens that the model expects around a bare text (Llama: BOS) are added. Chat templates write
// theirs themselves, so that a rendered chat is encoded without.
enum class SequenceTokens { none, add };

// Ids with the bytes of the input that each came from (for an input that is not valid UTF-8: of its repaired text).
struct EncodedText {
  std::vector<int32_t> ids;
  std::vector<TextRange> ranges;
};

class Tokenizer {
 public:
  // Throws ConfigError (a part that Lathe does not know) or FormatError (a file that contradicts itself).
  static std::shared_ptr<const Tokenizer> from_metadata(const TokenizerMetadata& metadata,
                                                        const std::string& file = "GGUF tokenizer");
  // Reads tokenizer.json and, where they exist, tokenizer_config.json, special_tokens_map.json, added_tokens.json,
  // chat_template.jinja and additional_chat_templates/*.jinja, as transformers does; where none of them has a template,
  // chat_template.json.
  static std::shared_ptr<const Tokenizer> from_directory(const std::filesystem::path& directory);
  ~Tokenizer();

  // Invalid UTF-8 is read as Python's errors="replace" reads it.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special = SpecialTokens::as_text,
                              SequenceTokens sequence = SequenceTokens::none) const;
  // The same, with special tokens recognised only where they lie whole in one of `control` (sorted, disjoint): the
  // text that a chat template wrote itself. Equal to encode(text, recognise) where nothing else looks like one.
  std::vector<int32_t> encode(std::string_view text, std::span<const TextRange> control) const;
  EncodedText encode_with_ranges(std::string_view text, std::span<const TextRange> control) const;

  // Invalid UTF-8 comes out as U+FFFD. Ids without a token (a model's vocabulary may be padded) have no text.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  int32_t vocab_size() const;  // largest id + 1
  // The token as the vocabulary spells it ("Ġthe", "▁the", "<0x0A>"), empty for an id without one.
  std::string_view token(int32_t id) const;
  std::optional<int32_t> token_id(std::string_view token) const;
  // What it adds to a text that it does not begin: bytes, not always whole characters.
  std::string bytes(int32_t id) const;
  bool is_special(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> eom_id() const;  // GGUF's end of message (Llama 3.1's tool calls)
  std::optional<int32_t> eot_id() const;  // GGUF's end of turn, where it differs from EOS
  std::optional<int32_t> unknown_id() const;
  std::optional<int32_t> padding_id() const;
  // The Jinja sources that came with the tokenizer, by name: "default", "tool_use", …
  const std::map<std::string, std::string>& chat_templates() const;
  std::optional<std::string> chat_template() const;  // the default one

  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);

 private:
  friend class StreamDecoder;
  std::unique_ptr<const Parts> parts_;
};

// Decoding one token at a time. The pieces, joined, are what decode() gives for all the ids at once: bytes of a
// character that is not complete yet are held back.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  std::string push(int32_t id);
  // What was held back, when no more tokens come.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<Decoding> decoding_;
};

}  // namespace lathe::data
