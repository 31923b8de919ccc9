// SentencePiece's compiled rules of normalisation (its precompiled_charsmap): what stands for which characters.
//
// The bytes are u32 size, a trie of `size` bytes, and the block of replacements, each ended by a NUL. The trie is a
// darts-clone double array of u32 units: a unit's low byte is its label, bit 8 says that a key ends there, bits 10 and
// up (shifted by 8 more where bit 9 is set) lead on; a value is a place in the block.
//
// Applied as Hugging Face's tokenizers apply it: a grapheme of fewer than six bytes is replaced whole by what stands
// for the shortest key that it begins with; where none does, or it is longer, each of its characters is, by itself.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::data {

struct AlignedText;

class PrecompiledCharsmap {
 public:
  // FormatError (file, what is wrong) for bytes in which some text would lead astray. In linear time.
  PrecompiledCharsmap(std::string_view bytes, const std::string& file);

  // What stands for the shortest key that `text` begins with.
  std::optional<std::string_view> replacement(std::string_view text) const;
  void apply(AlignedText& text) const;

 private:
  uint32_t value_of(uint32_t node) const { return units_[node] & 0x7FFFFFFF; }
  std::string_view replacement_at(uint32_t value) const;
  void check(const std::string& file) const;
  template <class Take>
  void parts_of(std::string_view text, const Take& take) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
  std::array<bool, 128> kept_{};  // ASCII characters that nothing stands for
};

// tokenizer.json's "precompiled_charsmap": the bytes in base64. FormatError where it is none.
PrecompiledCharsmap read_precompiled_charsmap(std::string_view base64, const std::string& file);

}  // namespace lathe::data
