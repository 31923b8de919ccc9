#include "data/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// \w of a regular expression: letters, marks, decimal digits, letter numbers, connectors.
bool is_word_character(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

size_t previous_character(std::string_view text, size_t position) {
  do --position;
  while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  return position;
}

bool word_character_before(std::string_view text, size_t position) {
  if (position == 0) return false;
  size_t at = previous_character(text, position);
  return is_word_character(next_code_point(text, at));
}

bool word_character_at(std::string_view text, size_t position) {
  return position < text.size() && is_word_character(next_code_point(text, position));
}

size_t skip_white_space_back(std::string_view text, size_t position, size_t floor) {
  while (position > floor) {
    const size_t before = previous_character(text, position);
    size_t at = before;
    if (before < floor || !is_white_space(next_code_point(text, at))) break;
    position = before;
  }
  return position;
}

size_t skip_white_space(std::string_view text, size_t position) {
  while (position < text.size()) {
    size_t at = position;
    if (!is_white_space(next_code_point(text, at))) break;
    position = at;
  }
  return position;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view content) {
  if (content.empty()) return;
  int32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<unsigned char>(c);
    auto& edges = nodes_[node].edges;
    const auto edge = std::find_if(edges.begin(), edges.end(), [&](const Edge& e) { return e.byte == byte; });
    if (edge != edges.end()) {
      node = edge->node;
      continue;
    }
    const auto created = static_cast<int32_t>(nodes_.size());
    edges.push_back({byte, created});
    nodes_.emplace_back();
    node = created;
  }
  first_bytes_[static_cast<unsigned char>(content[0])] = true;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text,
                                                              std::span<const TextRange> control) const {
  std::vector<Match> matches;
  if (empty()) return matches;
  size_t taken = 0;              // end of the last match
  auto range = control.begin();  // first control range that does not end before `position`
  for (size_t position = 0; position < text.size();) {
    if (!first_bytes_[static_cast<unsigned char>(text[position])]) {
      ++position;
      continue;
    }
    while (range != control.end() && range->end <= position) ++range;
    const size_t control_end = range != control.end() && range->begin <= position ? range->end : 0;
    const AddedToken* best = nullptr;
    size_t best_end = 0;
    int32_t node = 0;
    for (size_t end = position; end < text.size();) {
      const auto& edges = nodes_[node].edges;
      const auto byte = static_cast<unsigned char>(text[end]);
      const auto edge = std::find_if(edges.begin(), edges.end(), [&](const Edge& e) { return e.byte == byte; });
      if (edge == edges.end()) break;
      node = edge->node;
      ++end;
      if (nodes_[node].token < 0) continue;
      const AddedToken& token = tokens_[nodes_[node].token];
      if (token.special && end > control_end) continue;
      best = &token;
      best_end = end;
    }
    if (!best) {
      ++position;
      continue;
    }
    const size_t next = best_end;
    size_t begin = position;
    if (!best->single_word || (!word_character_before(text, begin) && !word_character_at(text, best_end))) {
      if (best->lstrip) begin = skip_white_space_back(text, begin, taken);
      if (best->rstrip) best_end = skip_white_space(text, best_end);
      matches.push_back({begin, best_end, best});
      taken = best_end;
    }
    position = std::max(next, taken);
  }
  return matches;
}

}  // namespace lathe::data
