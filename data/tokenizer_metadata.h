// What a GGUF file says about its tokenizer (keys tokenizer.ggml.* and tokenizer.chat_template), as plain data:
// nn/weights reads the file, a program copies the fields, data/tokenizer builds a Tokenizer. Neither room sees
// the other.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lathe::data {

// The values of tokenizer.ggml.token_type.
enum class TokenType : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct TokenizerMetadata {
  // .model: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE), "t5" (Unigram) or "bert" (WordPiece)
  std::string model;
  std::string pre;                   // .pre: "smollm", "gpt-2", "llama-bpe", "qwen2", …
  std::vector<std::string> tokens;   // .tokens: index = id
  std::vector<float> scores;         // .scores: empty or one for each token
  std::vector<int32_t> token_types;  // .token_type: empty or one TokenType for each token
  std::vector<std::string> merges;   // .merges: "left right", best first
  std::optional<int64_t> bos_id, eos_id, eot_id, eom_id, unknown_id, padding_id;  // .*_token_id
  std::optional<int64_t> separator_id;                                            // .seperator_token_id
  std::optional<bool> add_bos;                                                    // .add_bos_token
  std::optional<bool> add_eos;                                                    // .add_eos_token
  std::optional<bool> add_space_prefix;  // .add_space_prefix ("llama" and "t5")
  // "t5" only:
  std::optional<bool> remove_extra_whitespaces;  // .remove_extra_whitespaces
  std::string precompiled_charsmap;              // .precompiled_charsmap: SentencePiece's compiled rules
  // tokenizer.chat_template is "default", tokenizer.chat_template.NAME is NAME
  std::map<std::string, std::string> chat_templates;
};

}  // namespace lathe::data
