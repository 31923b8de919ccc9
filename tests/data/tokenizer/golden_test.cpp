// Token ids of the tokenizers library, both ways, over one corpus: every script, emoji, control characters, long
// runs of spaces, broken UTF-8. See tests/golden/README.md.
#include "tests/data/golden_cases.h"

namespace lathe::data {
namespace {

class TokenizerJson : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerJson, AgreesWithTheLibrary) {
  const auto directory = golden::folder / "tokenizer" / GetParam();
  golden::compare_with_library(Tokenizer::from_directory(directory), directory / "cases.json");
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenizerJson,
                         testing::Values("byte_level", "split_regex", "sentencepiece", "metaspace"));

}  // namespace
}  // namespace lathe::data
