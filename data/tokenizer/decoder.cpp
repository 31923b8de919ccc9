#include "data/tokenizer/decoder.h"

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

using json = nlohmann::ordered_json;

int hexadecimal_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte of a token <0xNN>, or -1.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return -1;
  const int high = hexadecimal_digit(token[3]), low = hexadecimal_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// At most 64 times the token and 64 KiB, as for the normaliser: a few replacements of a letter by a thousand would
// otherwise make gigabytes of it.
void replace_all(std::string& text, const std::string& from, std::string_view to, size_t most_bytes) {
  std::string changed;
  size_t end = 0;
  for (size_t at = 0; (at = text.find(from, end)) != std::string::npos; end = at + from.size()) {
    changed.append(text, end, at - end).append(to);
    if (changed.size() > most_bytes)
      throw Error("the tokenizer's decoder makes more than the " + std::to_string(most_bytes) +
                  " bytes of a token that it may");
  }
  if (end > 0) text = changed.append(text, end);
}

// As the tokenizers library tidies English, token by token.
void clean_up(std::string& text, size_t most_bytes) {
  for (const auto& [from, to] : {std::pair{" .", "."},
                                 {" ?", "?"},
                                 {" !", "!"},
                                 {" ,", ","},
                                 {" ' ", "'"},
                                 {" n't", "n't"},
                                 {" 'm", "'m"},
                                 {" do not", " don't"},
                                 {" 's", "'s"},
                                 {" 've", "'ve"},
                                 {" 're", "'re"}})
    replace_all(text, from, to, most_bytes);
}

// With the replacements made; `first` in a text or not.
std::string respelled(std::string_view token, const DecoderSettings& settings, bool first) {
  std::string piece(token);
  const size_t most_bytes = 64 * token.size() + (1 << 16);
  if (!settings.continuing_prefix.empty()) {
    if (!first && piece.starts_with(settings.continuing_prefix)) {
      piece.erase(0, settings.continuing_prefix.size());
    } else if (!first) {
      piece.insert(0, " ");
    }
    if (settings.clean_up) clean_up(piece, most_bytes);
  }
  for (const auto& [from, to] : settings.replacements) replace_all(piece, from, to, most_bytes);
  if (!settings.metaspace.empty())
    replace_all(piece, settings.metaspace, first && settings.metaspace_trim ? "" : " ", most_bytes);
  return piece;
}

size_t count(const json& description, const char* key, const std::string& file) {
  const auto found = description.find(key);
  return found == description.end() ? 0 : static_cast<size_t>(json_integer(*found, key, 0, INT32_MAX, file));
}

void read_into(const json& description, const std::string& file, DecoderSettings& settings) {
  const std::string type = description.at("type");
  if (type == "Sequence") {
    for (const json& part : description.at("decoders")) read_into(part, file, settings);
  } else if (type == "ByteLevel") {
    settings.byte_level = true;
  } else if (type == "ByteFallback") {
    settings.byte_fallback = true;
  } else if (type == "Fuse") {
    // Fuse joins the pieces, which are joined here in any case; after it Strip sees the whole text, as it does here.
  } else if (type == "Replace" && description.at("pattern").contains("String")) {
    settings.replacements.emplace_back(description.at("pattern").at("String"), description.at("content"));
    if (settings.replacements.back().first.empty()) throw ConfigError(file, "the decoder Replace has an empty pattern");
  } else if (type == "Strip" && count(description, "stop", file) == 0) {
    settings.strip = description.at("content");
    settings.strip_count = count(description, "start", file);
  } else if (type == "WordPiece") {
    settings.continuing_prefix = description.value("prefix", std::string("##"));
    settings.clean_up = description.value("cleanup", true);
    if (settings.continuing_prefix.empty()) throw ConfigError(file, "the decoder WordPiece has an empty prefix");
  } else if (type == "Metaspace") {
    settings.metaspace = description.value("replacement", std::string("▁"));
    const std::string prefix = description.value("add_prefix_space", true) ? "always" : "never";
    settings.metaspace_trim = description.value("prepend_scheme", prefix) != "never";
  } else {
    throw ConfigError(file, "the decoder '" + type +
                                "' is not supported in this form (ByteLevel, ByteFallback, Fuse, "
                                "Replace of a string, Strip at the start, Metaspace, WordPiece and Sequence are)");
  }
}

}  // namespace

DecoderSettings read_decoder(const json& description, const std::string& file) {
  DecoderSettings settings;
  if (description.is_null()) {
    settings.separator = " ";
  } else {
    read_into(description, file, settings);
  }
  return settings;
}

std::string bytes_of_token(std::string_view token, const DecoderSettings& settings) {
  if (settings.byte_level) return bytes_of_alphabet(token).value_or(std::string(token));
  const std::string piece = respelled(token, settings, false);
  const int byte = settings.byte_fallback ? byte_of_token(piece) : -1;
  return byte >= 0 ? std::string(1, static_cast<char>(byte)) : settings.separator + piece;
}

void Decoding::emit(std::string_view piece, std::string& text) {
  while (strips_left_ > 0 && !piece.empty()) {
    if (!piece.starts_with(settings_.strip) || settings_.strip.empty()) {
      strips_left_ = 0;
      break;
    }
    piece.remove_prefix(settings_.strip.size());
    --strips_left_;
  }
  text += piece;
}

// A run of byte tokens is text if all of it is UTF-8, else one U+FFFD for each byte (as tokenizers' ByteFallback).
void Decoding::flush_bytes(std::string& text) {
  if (pending_.empty()) return;
  if (is_valid_utf8(pending_)) {
    emit(pending_, text);
  } else {
    for (size_t i = 0; i < pending_.size(); ++i) emit(replacement_character, text);
  }
  pending_.clear();
}

void Decoding::push(std::string_view token, std::string& text) {
  const bool first = first_token_;
  first_token_ = false;
  if (!first && !settings_.separator.empty()) emit(settings_.separator, text);
  if (settings_.byte_level) {
    if (const auto bytes = bytes_of_alphabet(token)) {
      pending_ += *bytes;
    } else {
      pending_ += token;
    }
    const size_t complete = pending_.size() - incomplete_utf8_suffix(pending_);
    const std::string_view ready = std::string_view(pending_).substr(0, complete);
    emit(is_valid_utf8(ready) ? std::string(ready) : replace_invalid_utf8(ready), text);
    pending_.erase(0, complete);
    return;
  }
  const std::string piece = respelled(token, settings_, first);
  const int byte = settings_.byte_fallback ? byte_of_token(piece) : -1;
  if (byte >= 0) {
    pending_ += static_cast<char>(byte);
    return;
  }
  flush_bytes(text);
  emit(piece, text);
}

void Decoding::finish(std::string& text) {
  if (settings_.byte_level) {
    emit(replace_invalid_utf8(pending_), text);
    pending_.clear();
  } else {
    flush_bytes(text);
  }
}

}  // namespace lathe::data
