#include "data/tokenizer/tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/parts.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// One encoding of one text.
class Encoding {
 public:
  Encoding(const Tokenizer::Parts& parts, std::string_view text, std::span<const TextRange> control, bool with_ranges)
      : parts_(parts),
        text_(text),
        control_(control),
        with_ranges_(with_ranges),
        keeps_origin_(with_ranges || parts.pre_tokenizers.looks_at_origin ||
                      (!control.empty() && !parts.normalized_tokens.empty())) {}

  EncodedText run() {
    result_.ids.reserve(text_.size() / 3 + 8);
    size_t done = 0;
    for (const auto& match : parts_.raw_tokens.find(text_, control_)) {
      encode_segment(done, match.begin);
      append(match.token->id, match.begin, match.end);
      done = match.end;
    }
    encode_segment(done, text_.size());
    return std::move(result_);
  }

 private:
  void append(int32_t id, size_t begin, size_t end) {
    result_.ids.push_back(id);
    if (with_ranges_) result_.ranges.push_back({begin, end});
  }

  void encode_segment(size_t begin, size_t end) {
    if (begin == end) return;
    AlignedText segment{std::string(text_.substr(begin, end - begin)), begin};
    segment.keeps_origin = keeps_origin_;
    for (const Normalizer& normalizer : parts_.normalizers) normalizer.apply(segment);
    std::vector<TextPiece> words;
    if (parts_.normalized_tokens.empty()) {
      words.push_back({0, segment.text.size()});
      encode_words(segment, words);
      return;
    }
    const std::vector<TextRange> control = control_within(segment);
    size_t done = 0;
    const auto encode_until = [&](size_t until) {
      if (until == done) return;
      AlignedText part{segment.text.substr(done, until - done), segment.base + done};
      part.keeps_origin = keeps_origin_;
      if (!segment.origin.empty()) part.origin.assign(segment.origin.begin() + done, segment.origin.begin() + until);
      words.assign(1, {0, part.text.size()});
      encode_words(part, words);
    };
    for (const auto& match : parts_.normalized_tokens.find(segment.text, control)) {
      encode_until(match.begin);
      append(match.token->id, segment.origin_of(match.begin), segment.origin_end(match.end));
      done = match.end;
    }
    encode_until(segment.text.size());
  }

  // The parts of the normalised segment that come from control ranges.
  std::vector<TextRange> control_within(const AlignedText& segment) const {
    std::vector<TextRange> within;
    if (control_.empty()) return within;
    for (size_t i = 0; i < segment.text.size(); ++i) {
      const size_t place = segment.origin_of(i);
      const auto range = std::find_if(control_.begin(), control_.end(),
                                      [&](const TextRange& r) { return place >= r.begin && place < r.end; });
      if (range == control_.end()) continue;
      if (!within.empty() && within.back().end == i && i > 0 && segment.origin_of(i - 1) >= range->begin) {
        within.back().end = i + 1;
      } else {
        within.push_back({i, i + 1});
      }
    }
    return within;
  }

  void encode_words(AlignedText& text, std::vector<TextPiece>& words) {
    for (const PreTokenizer& step : parts_.pre_tokenizers.steps) step.apply(text, words);
    for (const TextPiece& word : words) {
      tokens_.clear();
      const std::string_view piece = std::string_view(text.text).substr(word.begin, word.end - word.begin);
      std::visit([&](const auto& model) { model.encode(piece, parts_.vocabulary, tokens_); }, *parts_.model);
      for (const WordToken& token : tokens_) {
        result_.ids.push_back(token.id);
        if (!with_ranges_) continue;
        result_.ranges.push_back({text.origin_of(word.begin + token.begin), text.origin_end(word.begin + token.end)});
      }
    }
  }

  const Tokenizer::Parts& parts_;
  std::string_view text_;
  std::span<const TextRange> control_;
  bool with_ranges_;
  bool keeps_origin_;
  EncodedText result_;
  std::vector<WordToken> tokens_;
};

EncodedText encode_text(const Tokenizer::Parts& parts, std::string_view text, std::span<const TextRange> control,
                        bool with_ranges) {
  if (is_valid_utf8(text)) return Encoding(parts, text, control, with_ranges).run();
  const std::string repaired = replace_invalid_utf8(text);
  std::vector<TextRange> moved;
  for (const TextRange& range : control) {
    moved.push_back({replace_invalid_utf8(text.substr(0, range.begin)).size(),
                     replace_invalid_utf8(text.substr(0, range.end)).size()});
  }
  return Encoding(parts, repaired, moved, with_ranges).run();
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special, SequenceTokens sequence) const {
  const TextRange whole{0, text.size()};
  std::vector<int32_t> ids = encode(text, std::span(&whole, special == SpecialTokens::recognise ? 1 : 0));
  if (sequence == SequenceTokens::none) return ids;
  ids.insert(ids.begin(), parts_->before.begin(), parts_->before.end());
  ids.insert(ids.end(), parts_->after.begin(), parts_->after.end());
  return ids;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, std::span<const TextRange> control) const {
  return encode_text(*parts_, text, control, false).ids;
}

EncodedText Tokenizer::encode_with_ranges(std::string_view text, std::span<const TextRange> control) const {
  return encode_text(*parts_, text, control, true);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  Decoding decoding(parts_->decoder);
  for (const int32_t id : ids) {
    if (!parts_->vocabulary.contains(id) || (skip_special_tokens && is_special(id))) continue;
    decoding.push(parts_->vocabulary.token(id), text);
  }
  decoding.finish(text);
  return text;
}

int32_t Tokenizer::vocab_size() const { return parts_->vocabulary.size(); }
std::string_view Tokenizer::token(int32_t id) const { return parts_->vocabulary.token(id); }
std::optional<int32_t> Tokenizer::token_id(std::string_view token) const { return parts_->vocabulary.find(token); }
std::string Tokenizer::bytes(int32_t id) const { return bytes_of_token(token(id), parts_->decoder); }
bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < parts_->special.size() && parts_->special[id];
}
std::optional<int32_t> Tokenizer::bos_id() const { return parts_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return parts_->eos_id; }
std::optional<int32_t> Tokenizer::eom_id() const { return parts_->eom_id; }
std::optional<int32_t> Tokenizer::eot_id() const { return parts_->eot_id; }
std::optional<int32_t> Tokenizer::unknown_id() const { return parts_->unknown_id; }
std::optional<int32_t> Tokenizer::padding_id() const { return parts_->padding_id; }
const std::map<std::string, std::string>& Tokenizer::chat_templates() const { return parts_->chat_templates; }
std::optional<std::string> Tokenizer::chat_template() const {
  const auto found = parts_->chat_templates.find("default");
  return found == parts_->chat_templates.end() ? std::nullopt : std::optional(found->second);
}

void Tokenizer::Parts::add_token(const AddedToken& token, const std::string& file) {
  const auto known = vocabulary.find(token.content);
  if (known ? *known != token.id : !vocabulary.insert(token.id, token.content)) {
    throw FormatError(
        file, -1,
        "the added token '" + token.content + "' has id " + std::to_string(token.id) +
            (known ? ", but the vocabulary gives it " + std::to_string(*known)
                   : ", which the vocabulary gives to '" + std::string(vocabulary.token(token.id)) + "'"));
  }
  if (special.size() <= static_cast<size_t>(token.id)) special.resize(static_cast<size_t>(token.id) + 1);
  special[token.id] = token.special;
  if (!token.normalized || normalizers.empty()) {
    raw_tokens.add(token, token.content);
    return;
  }
  AlignedText normalized{token.content};
  normalized.keeps_origin = false;
  for (const Normalizer& normalizer : normalizers) normalizer.apply(normalized);
  normalized_tokens.add(token, normalized.text);
}

void Tokenizer::Parts::check_id(std::optional<int32_t> id, const char* name, const std::string& file) const {
  if (!id || (*id >= 0 && *id < vocabulary.size())) return;
  throw FormatError(file, -1,
                    std::string(name) + " is " + std::to_string(*id) + ", but the vocabulary has " +
                        std::to_string(vocabulary.size()) + " tokens");
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)),
      skip_special_tokens_(skip_special_tokens),
      decoding_(std::make_unique<Decoding>(tokenizer_->parts_->decoder)) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  std::string text;
  if (!tokenizer_->parts_->vocabulary.contains(id) || (skip_special_tokens_ && tokenizer_->is_special(id))) return text;
  decoding_->push(tokenizer_->token(id), text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  decoding_->finish(text);
  return text;
}

}  // namespace lathe::data
