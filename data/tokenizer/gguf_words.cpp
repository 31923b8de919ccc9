#include "data/tokenizer/gguf_words.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json_value.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

const std::string continuing_prefix = "##";

TokenType type_of(const TokenizerMetadata& metadata, size_t id) {
  return metadata.token_types.empty() ? TokenType::normal : static_cast<TokenType>(metadata.token_types[id]);
}

// Those of tokens that are not normal are the converter's invention: 0, as SentencePiece has them.
std::vector<double> piece_scores(const TokenizerMetadata& metadata, const std::string& file) {
  if (metadata.scores.empty()) throw FormatError(file, -1, "tokenizer.ggml.scores is missing");
  std::vector<double> scores(metadata.tokens.size());
  for (size_t id = 0; id < scores.size(); ++id) {
    if (metadata.tokens[id].size() > most_piece_bytes)
      throw FormatError(file, -1,
                        "token " + std::to_string(id) + " has " + std::to_string(metadata.tokens[id].size()) +
                            " bytes, more than the " + std::to_string(most_piece_bytes) + " that a piece may have");
    if (!std::isfinite(metadata.scores[id]))
      throw FormatError(file, -1, "the score of token " + std::to_string(id) + " is no number");
    if (type_of(metadata, id) == TokenType::normal) scores[id] = unigram_score(double{metadata.scores[id]});
  }
  return scores;
}

// BERT's vocabularies of lower-case text have no capital, and GGUF does not say whether a text is to be lower case.
bool is_lower_case(const TokenizerMetadata& metadata) {
  const auto is_capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  for (size_t id = 0; id < metadata.tokens.size(); ++id)
    if (type_of(metadata, id) == TokenType::normal && std::ranges::any_of(metadata.tokens[id], is_capital))
      return false;
  return true;
}

}  // namespace

std::string word_piece_of(const TokenizerMetadata& metadata, size_t id) {
  const std::string& token = metadata.tokens[id];
  if (type_of(metadata, id) == TokenType::control) return token;
  return token.starts_with(space_mark) ? token.substr(space_mark.size()) : continuing_prefix + token;
}

void set_unigram(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts) {
  UnigramSettings settings;
  for (size_t id = 0; id < metadata.tokens.size(); ++id) {
    const TokenType type = type_of(metadata, id);
    settings.byte_fallback = settings.byte_fallback || type == TokenType::byte;
    if (type == TokenType::unknown && !parts.unknown_id) parts.unknown_id = static_cast<int32_t>(id);
  }
  settings.unknown_id = parts.unknown_id;
  parts.model.emplace(Unigram(settings, parts.vocabulary, piece_scores(metadata, file)));
  if (!metadata.precompiled_charsmap.empty()) {
    Normalizer rules{Normalizer::Kind::precompiled};
    rules.charsmap.emplace_back(metadata.precompiled_charsmap, file);
    parts.normalizers.push_back(std::move(rules));
  }
  if (metadata.remove_extra_whitespaces.value_or(false)) {
    const ordered_json steps = {{{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}},
                                {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", space_mark}}};
    std::ranges::move(read_normalizers({{"type", "Sequence"}, {"normalizers", steps}}, file),
                      std::back_inserter(parts.normalizers));
  }
  const ordered_json metaspace = {{"type", "Metaspace"},
                                  {"replacement", space_mark},
                                  {"prepend_scheme", metadata.add_space_prefix.value_or(true) ? "always" : "never"}};
  parts.pre_tokenizers = read_pre_tokenizers(metaspace, file);
  parts.decoder = read_decoder(metaspace, file);
  parts.decoder.byte_fallback = settings.byte_fallback;
}

void set_word_piece(const TokenizerMetadata& metadata, const std::string& file, Tokenizer::Parts& parts) {
  if (!parts.unknown_id) throw FormatError(file, -1, "tokenizer.ggml.unknown_token_id is missing");
  parts.model.emplace(
      WordPiece({.unknown_id = *parts.unknown_id, .continuing_prefix = continuing_prefix, .max_characters = 100}));
  parts.normalizers = read_normalizers({{"type", "BertNormalizer"}, {"lowercase", is_lower_case(metadata)}}, file);
  parts.pre_tokenizers = read_pre_tokenizers({{"type", "BertPreTokenizer"}}, file);
  parts.decoder = read_decoder({{"type", "WordPiece"}, {"prefix", continuing_prefix}}, file);
}

}  // namespace lathe::data
