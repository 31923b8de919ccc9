#include "serve/engine/grammar/token_masks.h"

#include <algorithm>

#include "core/error.h"

namespace lathe::engine {
namespace {

// Where a walk first meets a state that costs this much, and so much for each of its places, whether or not
// an earlier walk has been there: what a walk finds depends on nothing before it. A step beyond costs one.
constexpr int64_t cost_of_a_state = 64, cost_of_a_place = 32;
constexpr int64_t most_cost = 4'000'000;  // some 0.1 s
constexpr size_t most_states = 20'000;    // 1 KiB each
constexpr size_t most_mask_bytes = 16 << 20;
constexpr size_t most_recent = 8;  // grammars

uint8_t control_byte(std::ptrdiff_t number) { return static_cast<uint8_t>(Grammar::first_control_byte + number); }

}  // namespace

TokenBytes::TokenBytes(const data::Tokenizer& tokenizer, int64_t vocab_size)
    : place_(static_cast<size_t>(vocab_size), -1) {
  const auto count = static_cast<int32_t>(std::min<int64_t>(vocab_size, tokenizer.vocab_size()));
  for (int32_t id = 0; id < count; ++id) {
    if (tokenizer.is_special(id)) continue;
    std::string bytes = tokenizer.bytes(id);
    if (bytes.size() == 1) single_.set(static_cast<uint8_t>(bytes[0]));
    if (!bytes.empty()) sorted_.push_back({id, 0, std::move(bytes)});
  }
  std::stable_sort(sorted_.begin(), sorted_.end(), [](const Token& a, const Token& b) { return a.bytes < b.bytes; });
  for (size_t i = 0; i < sorted_.size(); ++i) {
    place_[static_cast<size_t>(sorted_[i].id)] = static_cast<int32_t>(i);
    if (i == 0) continue;
    const std::string &a = sorted_[i - 1].bytes, &b = sorted_[i].bytes;
    sorted_[i].shared = static_cast<int32_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  }
}

const std::string& TokenBytes::bytes_of(int32_t id) const {
  static const std::string none;
  const int32_t place = place_[static_cast<size_t>(id)];
  return place < 0 ? none : sorted_[static_cast<size_t>(place)].bytes;
}

std::optional<int> TokenBytes::needed_byte(uint8_t low, uint8_t high) const {
  std::optional<int> first;
  bool any = false;
  for (int byte = low; byte <= high; ++byte) {
    if (single_[static_cast<size_t>(byte)]) {
      any = true;
    } else if ((byte & 0xC0) == 0x80) {
      return byte;
    } else if (!first) {
      first = byte;
    }
  }
  return any ? std::nullopt : first;
}

TokenMasks::TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenBytes> tokens,
                       std::vector<int32_t> control_tokens)
    : grammar_(std::move(grammar)),
      tokens_(std::move(tokens)),
      control_tokens_(std::move(control_tokens)),
      automaton_(grammar_) {
  for (const auto& [low, high] : grammar_->byte_ranges())
    if (const auto missing = tokens_->needed_byte(low, high))
      throw ConfigError("grammar", "the tokenizer has no token for the byte " + std::to_string(*missing) +
                                       " alone, which an answer may need");
}

TokenMasks::Position TokenMasks::position_after(std::span<const int32_t> tokens) {
  Position position{automaton_.start(), generation_};
  for (const int32_t token : tokens) position = advanced(position, token);
  return position;
}

TokenMasks::Position TokenMasks::advanced(Position position, int32_t token) {
  if (const auto control = std::ranges::find(control_tokens_, token); control != control_tokens_.end())
    position.state = automaton_.next(position.state, control_byte(control - control_tokens_.begin()));
  for (const char byte : tokens_->bytes_of(token))
    position.state = automaton_.next(position.state, static_cast<uint8_t>(byte));
  return position;
}

const TokenMasks::Mask& TokenMasks::mask(Position position) {
  const auto known = masks_.find(position.state);
  if (known != masks_.end()) return known->second;
  return masks_.emplace(position.state, walk(position.state)).first->second;
}

TokenMasks::Mask TokenMasks::walk(int32_t start) {
  Mask mask;
  mask.tokens.resize(static_cast<size_t>(tokens_->vocab_size() + 63) / 64);
  const auto let_through = [&](int32_t token) {
    mask.tokens[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
    mask.empty = false;
  };
  ++walks_;
  int64_t cost = 0;
  const auto next = [&](int32_t state, char byte) {
    last_walk_.resize(std::max(last_walk_.size(), automaton_.state_count()));
    int64_t& last = last_walk_[static_cast<size_t>(state)];
    cost += last == walks_ ? 1 : cost_of_a_state + cost_of_a_place * automaton_.places(state);
    last = walks_;
    return automaton_.next(state, static_cast<uint8_t>(byte));
  };
  for (size_t i = 0; i < control_tokens_.size(); ++i)
    if (next(start, static_cast<char>(control_byte(static_cast<std::ptrdiff_t>(i)))) != Automaton::dead)
      let_through(control_tokens_[i]);
  // Of a text; a token of one of the bytes that stand for control tokens is none of those.
  const auto next_of_text = [&](int32_t state, char byte) {
    return static_cast<uint8_t>(byte) < Grammar::first_control_byte ? next(state, byte) : Automaton::dead;
  };
  for (const TokenBytes::Token& token : tokens_->sorted())
    if (token.bytes.size() == 1 && next_of_text(start, token.bytes[0]) != Automaton::dead) let_through(token.id);

  std::vector<int32_t> after{start};  // after so many bytes of the token, as far as it has got
  for (const TokenBytes::Token& token : tokens_->sorted()) {
    if (cost > most_cost) break;
    const auto shared = static_cast<size_t>(token.shared);
    if (shared >= after.size()) continue;  // it begins with what leads nowhere
    after.resize(shared + 1);
    bool alive = true;
    for (size_t i = shared; i < token.bytes.size(); ++i) {
      const int32_t state = next_of_text(after.back(), token.bytes[i]);
      alive = state != Automaton::dead;
      if (!alive) break;
      after.push_back(state);
    }
    if (alive) let_through(token.id);
  }
  return mask;
}

void TokenMasks::trim() {
  const size_t mask_bytes = masks_.size() * static_cast<size_t>(tokens_->vocab_size()) / 8;
  if (automaton_.state_count() <= most_states && mask_bytes <= most_mask_bytes) return;
  masks_.clear();
  last_walk_.clear();
  automaton_.reset();
  ++generation_;
}

std::shared_ptr<TokenMasks> RecentGrammars::masks_of(const std::shared_ptr<const Grammar>& grammar) {
  if (!tokenizer_) throw ConfigError("grammar", "this engine was made without a tokenizer, which a grammar needs");
  if (!bytes_) bytes_ = std::make_shared<const TokenBytes>(*tokenizer_, vocab_size_);
  const auto known =
      std::ranges::find_if(recent_, [&](const auto& masks) { return masks->grammar().source() == grammar->source(); });
  if (known != recent_.end()) {
    recent_.splice(recent_.begin(), recent_, known);
  } else {
    std::vector<int32_t> control_tokens;
    for (const std::string& spelling : grammar->control_tokens()) {
      const auto id = tokenizer_->token_id(spelling);
      if (!id || !tokenizer_->is_special(*id) || *id >= vocab_size_)
        throw ConfigError("grammar", "the model has no control token " + spelling);
      control_tokens.push_back(*id);
    }
    recent_.push_front(std::make_shared<TokenMasks>(grammar, bytes_, std::move(control_tokens)));
    if (recent_.size() > most_recent) recent_.pop_back();
  }
  return recent_.front();
}

void RecentGrammars::trim() {
  for (const auto& masks : recent_) masks->trim();
}

}  // namespace lathe::engine
