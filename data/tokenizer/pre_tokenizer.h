// Pre-tokenisers: where a text is cut into the words that merges do not cross.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/split_pattern.h"

namespace lathe::data {

struct PreTokenizer {
  enum class Kind { split, digits, prefix_space, metaspace };
  enum class Cut { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  enum class Prepend { always, first, never };

  Kind kind;
  std::vector<SplitPattern> pattern;  // split: matches of this, or
  std::string literal;                // of this text
  Cut cut = Cut::isolated;            // split
  bool invert = false;                // split: the pattern is what lies between the cuts
  bool individual = true;             // digits: each digit is a word
  std::string replacement;            // metaspace: what stands for a space
  Prepend prepend = Prepend::always;
  bool cut_words = true;  // metaspace: a word begins at each replaced space

  // Cuts each of `words` (ranges of text, in order) further. May change the text (metaspace, prefix_space).
  void apply(AlignedText& text, std::vector<TextPiece>& words) const;
};

struct PreTokenizers {
  std::vector<PreTokenizer> steps;
  bool byte_level = false;       // the last step maps bytes to GPT-2's alphabet
  bool looks_at_origin = false;  // a Metaspace(first) behind other steps asks which word begins the input
};

// GPT-2's own cuts (Radford et al., 2019), which ByteLevel makes where use_regex is on.
extern const char* const gpt2_pattern;

PreTokenizer split_pre_tokenizer(const std::string& pattern, const std::string& where);
PreTokenizer digits_pre_tokenizer(bool individual);

// tokenizer.json's "pre_tokenizer". Throws ConfigError for kinds that Lathe does not know.
PreTokenizers read_pre_tokenizers(const nlohmann::ordered_json& description, const std::string& file);

}  // namespace lathe::data
