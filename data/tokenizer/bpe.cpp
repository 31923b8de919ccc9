#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <queue>

#include "data/tokenizer/utf8.h"
#include "data/tokenizer/word_cache.h"

namespace lathe::data {
namespace {

// Up to here a scan over all pairs for each merge is quicker than a heap; 40 symbols is a very long word.
constexpr size_t short_word_symbols = 40;
constexpr uint32_t no_rank = MergeTable::no_rank;

}  // namespace

Bpe::Bpe(BpeSettings settings, const Vocabulary& vocabulary, std::span<const Merge> merges)
    : settings_(settings), identity_(WordCache::new_owner()), merges_(merges) {
  byte_ids_.assign(256, -1);
  byte_fallback_ids_.fill(-1);
  if (settings_.byte_fallback) byte_fallback_ids_ = byte_token_ids(vocabulary);
  for (int byte = 0; byte < 256; ++byte) {
    std::string symbol;
    append_code_point(symbol, byte_alphabet()[byte]);
    byte_ids_[byte] = vocabulary.find(symbol).value_or(-1);
  }
  for (size_t c = 0; c < ascii_ids_.size(); ++c) {
    const auto character = static_cast<char>(c);
    ascii_ids_[c] = vocabulary.find({&character, 1}).value_or(-1);
  }
  if (!may_be_cut(vocabulary, merges)) return;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  pairs.reserve(merges.size());
  for (const Merge& merge : merges) pairs.emplace_back(merge.left, merge.right);
  boundaries_ = MergeBoundaries(vocabulary, pairs);
}

// Whether pieces between boundaries, one after another, give what the whole word does.
bool Bpe::may_be_cut(const Vocabulary& vocabulary, std::span<const Merge> merges) const {
  if (settings_.alphabet == BpeAlphabet::bytes || settings_.ignore_merges) return false;
  const bool never_unknown = settings_.byte_fallback && std::ranges::count(byte_fallback_ids_, -1) == 0;
  if (settings_.fuse_unknown && settings_.unknown_id && !never_unknown) return false;
  // A symbol that stands for other characters than its own says nothing of its neighbours.
  std::vector<bool> for_others(static_cast<size_t>(vocabulary.size()));
  const auto note = [&](int32_t id) {
    if (id >= 0 && id < vocabulary.size()) for_others[static_cast<size_t>(id)] = true;
  };
  std::ranges::for_each(byte_fallback_ids_, note);
  note(settings_.unknown_id.value_or(-1));
  return std::ranges::none_of(merges, [&](const Merge& merge) {
    return for_others[static_cast<size_t>(merge.left)] || for_others[static_cast<size_t>(merge.right)] ||
           vocabulary.token(merge.left).empty() || vocabulary.token(merge.right).empty();
  });
}

void Bpe::split(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& symbols) const {
  bool last_unknown = false;
  const auto unknown = [&](size_t begin, size_t end) {
    if (!settings_.unknown_id) return;
    if (settings_.fuse_unknown && last_unknown) {
      symbols.back().end = static_cast<uint32_t>(end);
    } else {
      symbols.push_back({*settings_.unknown_id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    }
    last_unknown = true;
  };
  const auto known = [&](int32_t id, size_t begin, size_t end) {
    symbols.push_back({id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    last_unknown = false;
  };
  if (settings_.alphabet == BpeAlphabet::bytes) {
    for (size_t i = 0; i < word.size(); ++i) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
      id >= 0 ? known(id, i, i + 1) : unknown(i, i + 1);
    }
    return;
  }
  for (size_t begin = 0; begin < word.size();) {
    const auto byte = static_cast<unsigned char>(word[begin]);
    if (byte < ascii_ids_.size() && ascii_ids_[byte] >= 0) {
      known(ascii_ids_[byte], begin, begin + 1);
      ++begin;
      continue;
    }
    const size_t end = std::min(word.size(), begin + code_point_length(word[begin]));
    const auto id = vocabulary.find(word.substr(begin, end - begin));
    bool fallback = !id && settings_.byte_fallback;
    for (size_t i = begin; i < end && fallback; ++i) {
      fallback = byte_fallback_ids_[static_cast<unsigned char>(word[i])] >= 0;
    }
    if (id) {
      known(*id, begin, end);
    } else if (fallback) {
      for (size_t i = begin; i < end; ++i) known(byte_fallback_ids_[static_cast<unsigned char>(word[i])], i, i + 1);
    } else {
      unknown(begin, end);
    }
    begin = end;
  }
}

void Bpe::merge_short(std::vector<WordToken>& symbols) const {
  std::array<uint32_t, short_word_symbols> ranks;  // ranks[i]: of symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = merges_.rank(symbols[i].id, symbols[i + 1].id);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) best = ranks[i] < ranks[best] ? i : best;
    if (ranks[best] == no_rank) break;
    symbols[best].id = merges_.result(ranks[best]);
    symbols[best].end = symbols[best + 1].end;
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) ranks[i] = ranks[i + 1];
    if (best > 0) ranks[best - 1] = merges_.rank(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < count) ranks[best] = merges_.rank(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(count);
}

void Bpe::merge_long(std::vector<WordToken>& symbols) const {
  struct Candidate {
    uint32_t rank;
    uint32_t position;
    int32_t left, right;  // what stood there when the candidate was found; anything else makes it stale
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<int32_t>(symbols.size());
  std::vector<int32_t> next(count), previous(count);
  for (int32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : -1;
    previous[i] = i - 1;
  }
  std::vector<Candidate> found;
  found.reserve(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{}, std::move(found));
  const auto consider = [&](int32_t position) {
    if (position < 0 || next[position] < 0) return;
    const int32_t left = symbols[position].id, right = symbols[next[position]].id;
    const uint32_t rank = merges_.rank(left, right);
    if (rank != no_rank) queue.push({rank, static_cast<uint32_t>(position), left, right});
  };
  for (int32_t i = 0; i + 1 < count; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    const auto position = static_cast<int32_t>(candidate.position);
    const int32_t right = next[position];
    if (symbols[position].id != candidate.left || right < 0 || symbols[right].id != candidate.right) continue;
    symbols[position].id = merges_.result(candidate.rank);
    symbols[position].end = symbols[right].end;
    symbols[right].id = -1;
    next[position] = next[right];
    next[right] = -1;
    if (next[position] >= 0) previous[next[position]] = position;
    consider(previous[position]);
    consider(position);
  }
  std::erase_if(symbols, [](const WordToken& symbol) { return symbol.id < 0; });
}

void Bpe::encode_piece(std::string_view word, uint32_t begin, const Vocabulary& vocabulary,
                       std::vector<WordToken>& tokens) const {
  WordCache& cache = WordCache::of_this_thread();
  if (cache.append(identity_, word, begin, tokens)) return;
  thread_local std::vector<WordToken> symbols;
  symbols.clear();
  std::optional<int32_t> whole;
  if (settings_.ignore_merges) {
    if (settings_.alphabet == BpeAlphabet::characters) {
      whole = vocabulary.find(word);
    } else {
      std::string spelled;
      for (const char c : word) append_code_point(spelled, byte_alphabet()[static_cast<unsigned char>(c)]);
      whole = vocabulary.find(spelled);
    }
  }
  if (whole) {
    symbols.push_back({*whole, 0, static_cast<uint32_t>(word.size())});
  } else {
    split(word, vocabulary, symbols);
    symbols.size() <= short_word_symbols ? merge_short(symbols) : merge_long(symbols);
  }
  for (const WordToken& symbol : symbols) tokens.push_back({symbol.id, begin + symbol.begin, begin + symbol.end});
  cache.put(identity_, word, 0, symbols);
}

void Bpe::encode(std::string_view word, const Vocabulary& vocabulary, std::vector<WordToken>& tokens) const {
  for (size_t begin = 0; begin < word.size();) {
    const size_t end = boundaries_.next(word, begin);
    encode_piece(word.substr(begin, end - begin), static_cast<uint32_t>(begin), vocabulary, tokens);
    begin = end;
  }
}

}  // namespace lathe::data
