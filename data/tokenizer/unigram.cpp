#include "data/tokenizer/unigram.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>
#include <string>

#include "core/error.h"
#include "data/tokenizer/utf8.h"
#include "data/tokenizer/vocabulary.h"
#include "data/tokenizer/word_cache.h"

namespace lathe::data {
namespace {

// What an unknown character costs more than the least likely token (SentencePiece's kUnkPenalty).
constexpr double unknown_penalty = 10.0;
constexpr size_t most_nodes_kept = 1 << 16;  // of a line's memory for the next one

double power_of_ten(int exponent) {
  const std::string text = "1e" + std::to_string(exponent);
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

double unigram_score(double nearest) {
  if (!std::isfinite(nearest) || nearest == 0) return nearest;
  // The file's digits again: the fewest that mean this number, "1.0178e+01".
  char text[32];
  const char* const end =
      std::to_chars(text, text + sizeof(text), std::abs(nearest), std::chars_format::scientific).ptr;
  uint64_t digits = 0;
  int exponent = 0, fraction = 0;
  const char* at = text;
  for (bool behind_point = false; at < end && *at != 'e'; ++at) {
    if (*at == '.') {
      behind_point = true;
      continue;
    }
    digits = digits * 10 + static_cast<uint64_t>(*at - '0');
    fraction += behind_point ? 1 : 0;
  }
  at += at + 1 < end && at[1] == '+' ? 2 : 1;  // from_chars takes no plus
  std::from_chars(at, end, exponent);
  exponent -= fraction;
  if (std::abs(exponent) > 308) return nearest;
  const auto whole = static_cast<double>(digits);
  return std::copysign(exponent < 0 ? whole / power_of_ten(-exponent) : whole * power_of_ten(exponent), nearest);
}

Unigram::Unigram(UnigramSettings settings, const Vocabulary& vocabulary, const std::vector<double>& scores)
    : settings_(settings), identity_(WordCache::new_owner()), byte_ids_(byte_token_ids(vocabulary)) {
  std::vector<std::string_view> pieces(scores.size());
  for (size_t id = 0; id < scores.size(); ++id) pieces[id] = vocabulary.token(static_cast<int32_t>(id));
  pieces_ = PieceTrie(pieces, scores);
  const auto least = std::min_element(scores.begin(), scores.end());
  unknown_score_ = (least == scores.end() ? 0 : *least) - unknown_penalty;
}

void Unigram::best_path(std::string_view word, std::vector<Node>& nodes) const {
  nodes.assign(word.size() + 1, Node());
  for (size_t begin = 0; begin < word.size();) {
    const size_t next = std::min(word.size(), begin + code_point_length(word[begin]));
    const double before = nodes[begin].score;
    // Of equal sums the first found stays, which is the one with the longer last piece.
    const auto offer = [&](size_t end, uint32_t piece, double score) {
      Node& node = nodes[end];
      const double sum = score + before;
      if (node.begin < 0 || sum > node.score) node = {sum, static_cast<int32_t>(begin), piece};
    };
    bool known = false;  // the character by itself
    pieces_.pieces_at(word, begin, [&](size_t end, uint32_t piece, double score) {
      offer(end, piece, score);
      known = known || end == next;
    });
    if (!known) offer(next, unknown_piece, unknown_score_);
    begin = next;
  }
}

// A piece by its text, which may be several unknown characters: they are the token of that text where there is one.
void Unigram::append_text(std::string_view text, size_t begin, const Vocabulary& vocabulary,
                          std::vector<WordToken>& tokens) const {
  const auto from = static_cast<uint32_t>(begin), to = static_cast<uint32_t>(begin + text.size());
  if (const auto id = vocabulary.find(text)) {
    tokens.push_back({*id, from, to});
    return;
  }
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (settings_.byte_fallback && std::all_of(text.begin(), text.end(), [&](char byte) { return id_of(byte) >= 0; })) {
    for (size_t i = 0; i < text.size(); ++i)
      tokens.push_back({id_of(text[i]), from + static_cast<uint32_t>(i), from + static_cast<uint32_t>(i) + 1});
    return;
  }
  if (!settings_.unknown_id)
    throw ConfigError("tokenizer", "'" + std::string(text.substr(0, 64)) +
                                       "' has no tokens, and the Unigram model has no unk_id to stand for it");
  tokens.push_back({*settings_.unknown_id, from, to});
}

void Unigram::encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const {
  if (word.empty()) return;
  WordCache& cache = WordCache::of_this_thread();
  if (cache.append(identity_, word, 0, tokens)) return;
  const size_t first = tokens.size();
  thread_local std::vector<Node> nodes;
  struct Piece {
    size_t begin, end;
    int32_t id;  // negative: by its text
  };
  thread_local std::vector<Piece> pieces;  // from the last to the first
  best_path(word, nodes);
  pieces.clear();
  bool last_unknown = false;
  for (size_t end = word.size(); end > 0;) {
    const Node& node = nodes[end];
    const auto begin = static_cast<size_t>(node.begin);
    const int32_t id = node.piece == unknown_piece ? settings_.unknown_id.value_or(-1) : pieces_.id(node.piece);
    const bool unknown = settings_.unknown_id && id == *settings_.unknown_id;
    if (unknown && last_unknown) {
      pieces.back().begin = begin;
    } else {
      pieces.push_back({begin, end, unknown ? -1 : id});
    }
    last_unknown = unknown;
    end = begin;
  }
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    if (piece->id >= 0) {
      tokens.push_back({piece->id, static_cast<uint32_t>(piece->begin), static_cast<uint32_t>(piece->end)});
    } else {
      append_text(word.substr(piece->begin, piece->end - piece->begin), piece->begin, vocabulary, tokens);
    }
  }
  cache.put(identity_, word, 0, std::span(tokens).subspan(first));
  if (nodes.size() > most_nodes_kept) std::vector<Node>().swap(nodes);
}

}  // namespace lathe::data
