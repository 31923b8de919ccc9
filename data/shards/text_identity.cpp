#include "data/shards/text_identity.h"

#include <xxhash.h>

#include "core/digits.h"

namespace lathe::data {
namespace {

// Contractions, digits, spaces, line ends, capitals, composed and decomposed accents, wide characters, several scripts,
// emoji of several code points, code.
constexpr std::string_view page =
    "It's 1234567 things,  we'll SEE\tthem\r\n\n   — don't!  Ünïcödé cafe\u0301 ﬁne ＡＢＣ naïve\u00A0x\n"
    "日本語の文章です。 Привет, мир! مرحبا بالعالم नमस्ते दुनिया 안녕하세요 👩‍👩‍👧‍👦🇩🇪 3.14e-10 0xFF\n"
    "for (int i = 0; i < n; ++i) { printf(\"%d\\n\", i); }  # comment\n\n\n\tEND_of_text";

}  // namespace

std::string tokenizer_identity(const Tokenizer& tokenizer) {
  uint64_t hash = 0;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view token = tokenizer.token(id);
    hash = XXH64(token.data(), token.size(), hash + tokenizer.is_special(id));
  }
  const int32_t marks[] = {tokenizer.bos_id().value_or(-1), tokenizer.eos_id().value_or(-1)};
  hash = XXH64(marks, sizeof marks, hash);
  for (const SpecialTokens special : {SpecialTokens::as_text, SpecialTokens::recognise}) {
    const auto ids = tokenizer.encode(page, special, SequenceTokens::add);
    hash = XXH64(ids.data(), ids.size() * sizeof ids[0], hash);
  }
  return hash_digits(hash);
}

std::string chat_template_identity(const Tokenizer& tokenizer) {
  if (tokenizer.chat_templates().empty()) return "none";
  uint64_t hash = 0;
  for (const auto& [name, source] : tokenizer.chat_templates()) {
    hash = XXH64(name.data(), name.size(), hash);
    hash = XXH64(source.data(), source.size(), hash);
  }
  return hash_digits(hash);
}

}  // namespace lathe::data
