// A tokenizer from the metadata of a GGUF file.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/tokenizer/gguf_pre_tokenizers.h"
#include "data/tokenizer/gguf_words.h"
#include "data/tokenizer/parts.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// A converter's filling up to the model's vocabulary ("[PAD32100]"): a text that says so is no such token.
bool is_padding(const TokenizerMetadata& metadata, size_t id) {
  return metadata.model == "t5" && !metadata.token_types.empty() &&
         metadata.token_types[id] == static_cast<int32_t>(TokenType::unused);
}

void fill_vocabulary(const TokenizerMetadata& metadata, const std::string& file, Vocabulary& vocabulary) {
  const auto check_count = [&](size_t count, const char* key) {
    if (count == 0 || count == metadata.tokens.size()) return;
    throw FormatError(file, -1,
                      std::string("tokenizer.ggml.") + key + " has " + std::to_string(count) +
                          " entries, but there are " + std::to_string(metadata.tokens.size()) + " tokens");
  };
  if (metadata.tokens.empty()) throw FormatError(file, -1, "tokenizer.ggml.tokens is empty or missing");
  check_count(metadata.scores.size(), "scores");
  check_count(metadata.token_types.size(), "token_type");
  vocabulary = Vocabulary(metadata.tokens.size());
  std::string piece;
  for (size_t id = 0; id < metadata.tokens.size(); ++id) {
    if (is_padding(metadata, id)) continue;
    std::string_view token = metadata.tokens[id];
    if (metadata.model == "bert") token = piece = word_piece_of(metadata, id);
    if (vocabulary.insert(static_cast<int32_t>(id), token)) continue;
    throw FormatError(file, -1,
                      "token " + std::to_string(id) + " ('" + replace_invalid_utf8(token) +
                          "') is a duplicate of token " + std::to_string(vocabulary.find(token).value_or(-1)));
  }
}

std::vector<Bpe::Merge> merges_of_text(const TokenizerMetadata& metadata, const Vocabulary& vocabulary,
                                       const std::string& file) {
  std::vector<Bpe::Merge> merges;
  merges.reserve(metadata.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < metadata.merges.size(); ++rank) {
    const std::string_view merge = metadata.merges[rank];
    // In GPT-2's alphabet pieces hold no plain space: the first one after the start divides them, as in llama.cpp.
    const size_t space = merge.find(' ', 1);
    const auto fail = [&](const std::string& reason) -> FormatError {
      return FormatError(file, -1,
                         "merge " + std::to_string(rank) + " ('" + replace_invalid_utf8(merge) + "') " + reason);
    };
    if (space == std::string_view::npos || space + 1 >= merge.size())
      throw fail("is not two tokens with a space between");
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    joined.assign(left).append(right);
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right), result = vocabulary.find(joined);
    if (!left_id || !right_id || !result) {
      throw fail(std::string("names a token that is not in the vocabulary: '") +
                 replace_invalid_utf8(!left_id    ? left
                                      : !right_id ? right
                                                  : std::string_view(joined)) +
                 "'");
    }
    merges.push_back({*left_id, *right_id, *result});
  }
  return merges;
}

// SentencePiece files carry scores instead of merges: every cut of a piece into two pieces is a merge, the
// highest score first; among equals the longer left part, then the longer right part (Hugging Face's conversion).
std::vector<Bpe::Merge> merges_of_scores(const TokenizerMetadata& metadata, const Vocabulary& vocabulary,
                                         const std::string& file) {
  struct Candidate {
    Bpe::Merge merge;
    float score;
    uint32_t left_length, right_length;
  };
  if (metadata.scores.empty()) throw FormatError(file, -1, "tokenizer.ggml.scores is missing");
  std::vector<Candidate> candidates;
  for (size_t id = 0; id < metadata.tokens.size(); ++id) {
    if (!std::isfinite(metadata.scores[id]))
      throw FormatError(file, -1, "the score of token " + std::to_string(id) + " is no number");
    const auto type =
        metadata.token_types.empty() ? TokenType::normal : static_cast<TokenType>(metadata.token_types[id]);
    if (type != TokenType::normal && type != TokenType::user_defined) continue;
    const std::string_view token = metadata.tokens[id];
    if (!is_valid_utf8(token)) throw FormatError(file, -1, "token " + std::to_string(id) + " is not UTF-8");
    std::vector<size_t> starts;  // of the characters
    for (size_t at = 0; at < token.size(); at += code_point_length(token[at])) starts.push_back(at);
    const size_t first_candidate = candidates.size();
    for (size_t cut = 1; cut < starts.size(); ++cut) {
      const auto left = vocabulary.find(token.substr(0, starts[cut])),
                 right = vocabulary.find(token.substr(starts[cut]));
      if (!left || !right) continue;
      candidates.push_back({{*left, *right, static_cast<int32_t>(id)},
                            metadata.scores[id],
                            static_cast<uint32_t>(cut),
                            static_cast<uint32_t>(starts.size() - cut)});
    }
    std::sort(candidates.begin() + first_candidate, candidates.end(), [](const Candidate& a, const Candidate& b) {
      return a.merge.left != b.merge.left ? a.merge.left < b.merge.left : a.merge.right < b.merge.right;
    });
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left_length != b.left_length) return a.left_length > b.left_length;
    return a.right_length > b.right_length;
  });
  std::vector<Bpe::Merge> merges;
  merges.reserve(candidates.size());
  for (const Candidate& candidate : candidates) merges.push_back(candidate.merge);
  return merges;
}

// Returns whether models with these cuts want BOS.
bool set_byte_level(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts) {
  GgufPreTokenizer kind = gguf_pre_tokenizer(metadata.pre, file);
  parts.pre_tokenizers = std::move(kind.pre_tokenizers);
  if (kind.nfc) parts.normalizers.push_back(Normalizer{Normalizer::Kind::nfc});
  parts.decoder.byte_level = true;
  const BpeSettings settings{.ignore_merges = kind.ignore_merges};
  parts.model.emplace(Bpe(settings, parts.vocabulary, merges_of_text(metadata, parts.vocabulary, file)));
  return kind.adds_bos;
}

void set_sentence_piece(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts) {
  if (metadata.add_space_prefix.value_or(true)) {
    Normalizer prepend{Normalizer::Kind::prepend};
    prepend.content = "▁";
    parts.normalizers.push_back(std::move(prepend));
    parts.decoder.strip = " ";
    parts.decoder.strip_count = 1;
  }
  Normalizer replace{Normalizer::Kind::replace_string};
  replace.pattern = " ";
  replace.content = "▁";
  parts.normalizers.push_back(std::move(replace));
  parts.decoder.replacements.emplace_back("▁", " ");
  parts.decoder.byte_fallback = true;
  BpeSettings settings;
  settings.alphabet = BpeAlphabet::characters;
  settings.byte_fallback = settings.fuse_unknown = true;
  settings.unknown_id = parts.unknown_id;
  parts.model.emplace(Bpe(settings, parts.vocabulary, merges_of(metadata, parts.vocabulary, file)));
}

void add_control_tokens(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts) {
  for (size_t id = 0; id < metadata.token_types.size(); ++id) {
    const auto type = static_cast<TokenType>(metadata.token_types[id]);
    if (metadata.token_types[id] < 0 || metadata.token_types[id] > static_cast<int32_t>(TokenType::byte)) {
      throw FormatError(
          file, -1,
          "token " + std::to_string(id) + " has the unknown type " + std::to_string(metadata.token_types[id]));
    }
    const bool special = type == TokenType::control || (type == TokenType::unknown && metadata.model != "gpt2");
    if (!special && type != TokenType::user_defined) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = parts.vocabulary.token(token.id);
    token.special = special;
    parts.add_token(token, file);
  }
}

std::optional<int32_t> checked_id(std::optional<int64_t> id, const char* key, size_t tokens, const std::string& file) {
  if (!id) return std::nullopt;
  if (*id < 0 || *id >= static_cast<int64_t>(tokens)) {
    throw FormatError(file, -1,
                      std::string("tokenizer.ggml.") + key + " is " + std::to_string(*id) +
                          ", but the vocabulary has " + std::to_string(tokens) + " tokens");
  }
  return static_cast<int32_t>(*id);
}

}  // namespace

std::vector<Bpe::Merge> merges_of(const TokenizerMetadata& metadata, const Vocabulary& vocabulary,
                                  const std::string& file) {
  return metadata.merges.empty() ? merges_of_scores(metadata, vocabulary, file)
                                 : merges_of_text(metadata, vocabulary, file);
}

std::shared_ptr<const Tokenizer> Tokenizer::from_metadata(const TokenizerMetadata& metadata, const std::string& file) {
  auto parts = std::make_unique<Parts>();
  fill_vocabulary(metadata, file, parts->vocabulary);
  const size_t tokens = metadata.tokens.size();
  parts->bos_id = checked_id(metadata.bos_id, "bos_token_id", tokens, file);
  parts->eos_id = checked_id(metadata.eos_id, "eos_token_id", tokens, file);
  parts->eot_id = checked_id(metadata.eot_id, "eot_token_id", tokens, file);
  parts->eom_id = checked_id(metadata.eom_id, "eom_token_id", tokens, file);
  parts->unknown_id = checked_id(metadata.unknown_id, "unknown_token_id", tokens, file);
  parts->padding_id = checked_id(metadata.padding_id, "padding_token_id", tokens, file);
  const auto separator_id = checked_id(metadata.separator_id, "seperator_token_id", tokens, file);
  parts->chat_templates = metadata.chat_templates;

  bool adds_bos = false, adds_eos = false;
  if (metadata.model == "gpt2") {
    adds_bos = set_byte_level(metadata, file, *parts);
  } else if (metadata.model == "llama") {
    set_sentence_piece(metadata, file, *parts);
    adds_bos = true;
  } else if (metadata.model == "t5") {
    set_unigram(metadata, file, *parts);
    adds_eos = true;
  } else if (metadata.model == "bert") {
    set_word_piece(metadata, file, *parts);
    adds_bos = adds_eos = true;
  } else {
    throw ConfigError("tokenizer.ggml.model", "the tokenizer model '" + metadata.model + "' of " + file +
                                                  " is not supported (gpt2, llama, t5 and bert are)");
  }
  add_control_tokens(metadata, file, *parts);
  const auto last = parts->eos_id ? parts->eos_id : separator_id;
  if (metadata.add_bos.value_or(adds_bos) && parts->bos_id) parts->before.push_back(*parts->bos_id);
  if (metadata.add_eos.value_or(adds_eos) && last) parts->after.push_back(*last);
  return std::make_shared<const Tokenizer>(std::move(parts));
}

}  // namespace lathe::data
