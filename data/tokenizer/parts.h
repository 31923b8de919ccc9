// What a Tokenizer is made of; its two readers (tokenizer.json, GGUF metadata) fill this in.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/unigram.h"
#include "data/tokenizer/vocabulary.h"
#include "data/tokenizer/word_piece.h"

namespace lathe::data {

struct Tokenizer::Parts {
  Vocabulary vocabulary;
  std::optional<std::variant<Bpe, Unigram, WordPiece>> model;  // of words
  std::vector<Normalizer> normalizers;
  PreTokenizers pre_tokenizers;
  DecoderSettings decoder;
  AddedTokenMatcher raw_tokens;         // looked for in the input
  AddedTokenMatcher normalized_tokens;  // and in the normalised text
  std::vector<bool> special;            // by id
  std::vector<int32_t> before, after;   // what SequenceTokens::add puts around a text
  std::optional<int32_t> bos_id, eos_id, eot_id, eom_id, unknown_id, padding_id;
  std::map<std::string, std::string> chat_templates;  // by name

  // Registers a token with its matcher and, if the vocabulary lacks it, there. `file` is for errors.
  void add_token(const AddedToken& token, const std::string& file);
  // Throws FormatError where an id is past the vocabulary's end.
  void check_id(std::optional<int32_t> id, const char* name, const std::string& file) const;
};

// The merges of a GGUF file's tokenizer, best first: its own, or those that SentencePiece's scores stand for.
std::vector<Bpe::Merge> merges_of(const TokenizerMetadata& metadata, const Vocabulary& vocabulary,
                                  const std::string& file);

}  // namespace lathe::data
