// Token ids of the tokenizers library, both ways, over one corpus: every script, emoji, control characters, long
// runs of spaces, broken UTF-8. See tests/golden/README.md.
#include <fstream>

#include "core/error.h"
#include "core/random.h"
#include "data/tokenizer/gguf_pre_tokenizers.h"
#include "tests/data/golden_cases.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

class TokenizerJson : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerJson, AgreesWithTheLibrary) {
  const auto directory = golden::folder / "tokenizer" / GetParam();
  golden::compare_with_library(Tokenizer::from_directory(directory), directory / "cases.json");
}

// A fifth of a megabyte without a word's end, of one character, of blanks, of what the vocabulary lacks and of all of
// them: what is quadratic in a word or a line takes hours, and ctest's limit ends it.
TEST_P(TokenizerJson, TakesTimeLinearInAWordAndALine) {
  const auto tokenizer = Tokenizer::from_directory(golden::folder / "tokenizer" / GetParam());
  RandomStream random(9, RandomPurpose::test);
  const auto repeated = [](std::string_view piece) {
    std::string text;
    while (text.size() < 200'000) text += piece;
    return text;
  };
  std::string letters;
  while (letters.size() < 200'000) letters += static_cast<char>('a' + random.below(26));
  for (const std::string& text : {repeated("a"), repeated("ab"), repeated(" "), repeated("\n"), repeated("\u4e00"),
                                  repeated("\u0301"), repeated("<|im"), repeated("the "), repeated("1"), letters}) {
    const std::vector<int32_t> ids = tokenizer->encode(text, SpecialTokens::recognise, SequenceTokens::add);
    EXPECT_LE(ids.size(), 4 * text.size()) << text.substr(0, 8);
    EXPECT_FALSE(tokenizer->decode(ids, true).size() > 16 * text.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenizerJson,
                         testing::Values("byte_level", "split_regex", "sentencepiece", "metaspace", "unigram",
                                         "precompiled", "precompiled_accents", "unigram_bytes", "word_piece",
                                         "word_piece_cased"));

// The words of a golden file's rows, cut as their names say; how many names there are.
size_t compare_cuts(const char* file) {
  const auto rows = nlohmann::json::parse(golden::read(golden::folder / "tokenizer" / file));
  size_t names = 0;
  std::string last;
  GgufPreTokenizer kind;
  for (const auto& row : rows) {
    if (const std::string name = row.at("pre"); name != last) {
      kind = gguf_pre_tokenizer(last = name, "file.gguf");
      ++names;
    }
    const auto words = row.at("words").get<std::vector<std::string>>();
    AlignedText text;
    for (const std::string& word : words) text.text += word;
    std::vector<TextPiece> pieces{{0, text.text.size()}};
    for (const PreTokenizer& step : kind.pre_tokenizers.steps) step.apply(text, pieces);
    std::vector<std::string> found;
    for (const TextPiece& piece : pieces) found.push_back(text.text.substr(piece.begin, piece.end - piece.begin));
    EXPECT_EQ(found, words) << last;
  }
  return names;
}

// llama.cpp's names stand for what the models' own tokenizer.json cuts.
TEST(GgufPreTokenizers, CutAsTheLibraryDoes) {
  EXPECT_EQ(compare_cuts("gguf_pre_tokenizers.json"), 8u);
  EXPECT_EQ(compare_cuts("gguf_more_pre_tokenizers.json"), 14u);
  EXPECT_THROW(gguf_pre_tokenizer("unheard-of", "file.gguf"), ConfigError);
}

TEST(GgufPreTokenizers, NamesThatMeanTheSameCutAlike) {
  for (const auto& [name, other] : {std::pair{"llama-bpe", "pixtral"},
                                    {"llama-bpe", "falcon3"},
                                    {"dbrx", "smaug-bpe"},
                                    {"smollm", "minerva-7b"},
                                    {"deepseek-r1-qwen", "megrez"},
                                    {"gpt-4o", "llama4"},
                                    {"deepseek-v3", "hunyuan-dense"},
                                    {"gpt-2", "exaone4"}})
    EXPECT_EQ(pre_tokenizer_json(name, "file.gguf"), pre_tokenizer_json(other, "file.gguf")) << other;
  EXPECT_TRUE(gguf_pre_tokenizer("pixtral", "file.gguf").adds_bos);
  EXPECT_FALSE(gguf_pre_tokenizer("smaug-bpe", "file.gguf").ignore_merges);
}

// Tokens that stand in several files of a directory, as transformers joins them.
TEST(TokenizerDirectory, JoinsItsFilesAsTransformersDoes) {
  const auto cases = nlohmann::json::parse(golden::read(golden::folder / "tokenizer/directories.json"));
  const std::string text = cases.at("text");
  for (const auto& row : cases.at("rows")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const TemporaryFolder folder;
    std::filesystem::copy_file(golden::folder / "tokenizer/byte_level/tokenizer.json",
                               folder.path() / "tokenizer.json");
    for (const auto& [name, content] : row.at("files").items()) std::ofstream(folder.path() / name) << content.dump();
    const auto tokenizer = Tokenizer::from_directory(folder.path());
    const auto& expected = row.at("expected");
    const std::vector<int32_t> ids = tokenizer->encode(text, SpecialTokens::recognise, SequenceTokens::add);
    EXPECT_EQ(ids, expected.at("ids").get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer->decode(ids, true), expected.at("without_special").get<std::string>());
    const auto id = [&](const char* key) {
      return expected.at(key).is_null() ? std::nullopt : std::optional(expected.at(key).get<int32_t>());
    };
    EXPECT_EQ(tokenizer->bos_id(), id("bos"));
    EXPECT_EQ(tokenizer->eos_id(), id("eos"));
    EXPECT_EQ(tokenizer->padding_id(), id("pad"));
    EXPECT_EQ(tokenizer->unknown_id(), id("unk"));
    for (const auto& content : expected.at("special")) {
      const auto special = tokenizer->token_id(content.get<std::string>());
      EXPECT_TRUE(special && tokenizer->is_special(*special)) << content;
    }
  }
}

}  // namespace
}  // namespace lathe::data
