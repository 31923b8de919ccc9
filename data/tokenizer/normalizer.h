// Normalisers: what is done to the text before it is split. Each byte keeps the place it came from.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/bert_normalizer.h"
#include "data/tokenizer/precompiled_charsmap.h"
#include "data/tokenizer/regex.h"

namespace lathe::data {

// Bytes [begin, end) of an AlignedText's text.
struct TextPiece {
  size_t begin;
  size_t end;
};

// A piece of the input, changed or not.
struct AlignedText {
  struct Replacement {
    size_t begin, end;
    std::string_view bytes;
  };

  std::string text;
  size_t base = 0;             // where the piece begins in the input
  std::vector<size_t> origin;  // for each byte of text, its place in the input; empty: base + index
  // Real normalisers grow a text by a few times: four that each put a thousand letters for one would fill the memory.
  size_t most_bytes = 64 * text.size() + (1 << 16);
  // Whether `origin` is kept up: it takes eight times the text, and most of a normaliser's time.
  bool keeps_origin = true;

  size_t origin_of(size_t index) const { return origin.empty() ? base + index : origin[index]; }
  size_t origin_end(size_t index) const { return index == 0 ? origin_of(0) : origin_of(index - 1) + 1; }
  // Replaces each of `ranges` (sorted, disjoint) by `bytes`, which come from what they replace. Error beyond
  // most_bytes.
  void replace_all(const std::vector<TextPiece>& ranges, std::string_view bytes);
  // The same, each by bytes of its own.
  void replace(const std::vector<Replacement>& replacements);
  void prepend(std::string_view bytes);
};

struct Normalizer {
  enum class Kind {
    nfc,
    nfd,
    nfkc,
    nfkd,
    lowercase,
    prepend,
    replace_string,
    replace_regex,
    strip,
    strip_accents,
    nmt,
    bert,
    precompiled
  };
  Kind kind;
  std::string content;  // prepended or put in
  std::string pattern;  // replaced (replace_string)
  std::vector<Regex> regex;
  bool strip_left = false, strip_right = false;
  BertNormalization bert;
  std::vector<PrecompiledCharsmap> charsmap;

  void apply(AlignedText& text) const;
};

// tokenizer.json's "normalizer" (null gives none). Throws ConfigError for kinds that Lathe does not know.
std::vector<Normalizer> read_normalizers(const nlohmann::ordered_json& description, const std::string& file);

}  // namespace lathe::data
