// Shards that carry text, hold pairs, or are compressed: the rows of the file again, every fault of the bytes found.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/random.h"
#include "data/shards/shard_tokenization.h"
#include "data/shards/shards.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string bytes_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}
void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

class ShardKinds : public testing::TestWithParam<Compression> {
 protected:
  void SetUp() override {
    fs::copy_file(fs::path(source_dir) / "tests/golden/tokenizer/byte_level/tokenizer.json",
                  folder_ / "tokenizer.json");
    write(folder_ / "tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
    tokenizer_ = Tokenizer::from_directory(folder_);
    std::ofstream rows(folder_ / "rows.jsonl");
    for (int row = 0; row < 40; ++row)
      rows << json{{"prompt", "question " + std::to_string(row)},
                   {"chosen", "yes " + std::to_string(row * 7)},
                   {"rejected", "no"},
                   {"answer", row},
                   {"hint", row % 4 == 0 ? json() : json{{"é", 0.1 * row}}}}
                  .dump()
           << "\n";
  }

  fs::path tokenize(RowKind kind, const std::string& name = "shards", int64_t shard_tokens = 100) const {
    ShardTokenizationSettings settings;
    settings.inputs = {rows().string()};
    settings.output = folder_ / name;
    settings.kind = kind;
    settings.compression = GetParam();
    settings.shard_tokens = shard_tokens;
    settings.rows.vocab_size = tokenizer_->vocab_size();
    settings.preferences.max_length = 9;
    ShardTokenization work(settings, *tokenizer_, nullptr);
    while (work.step()) {
    }
    return settings.output;
  }
  fs::path rows() const { return folder_ / "rows.jsonl"; }

  TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
  std::shared_ptr<const Tokenizer> tokenizer_;
};

void read_all(const fs::path& folder) {
  const Shards shards(folder);
  std::vector<int32_t> ids, labels;
  for (int64_t row = 0; row < shards.rows(); ++row) {
    const auto [first, last] = shards.sequences_of_row(row);
    for (int64_t s = first; s < last; ++s) shards.append_sequence(s, ids, labels);
    shards.row_text(row);
  }
}

TEST_P(ShardKinds, PromptsComeBackWithTheirColumnsAndPlaces) {
  const Shards shards(tokenize(RowKind::prompt));
  const std::vector<PromptRow> expected = read_prompt_rows(rows(), *tokenizer_, nullptr, tokenizer_->vocab_size());
  ASSERT_EQ(shards.rows(), std::ssize(expected));
  EXPECT_GT(shards.manifest().files.size(), 2u);
  for (int64_t i = 0; i < shards.rows(); ++i) {
    std::vector<int32_t> ids, labels;
    shards.append_sequence(shards.sequences_of_row(i).first, ids, labels);
    const PromptRow row = prompt_row(ids, shards.row_text(i), "shards"), &raw = expected[static_cast<size_t>(i)];
    EXPECT_EQ(row.ids, raw.ids);
    EXPECT_EQ(row.prompt, raw.prompt);
    EXPECT_EQ(row.columns.dump(), raw.columns.dump()) << "the same columns in the same order";
    EXPECT_EQ(row.file, raw.file);
    EXPECT_EQ(row.line, raw.line);
  }
  const std::map<std::string, int64_t> columns = {{"answer", 40}, {"chosen", 40}, {"hint", 30}, {"rejected", 40}};
  EXPECT_EQ(shards.manifest().totals.columns, columns);
}

TEST_P(ShardKinds, PreferencesAreRowsOfTwoSequences) {
  const Shards shards(tokenize(RowKind::preference));
  PreferenceOptions options;
  options.max_length = 9;
  const PreferenceRows expected = read_preference_rows(rows(), *tokenizer_, nullptr, options);
  ASSERT_EQ(shards.rows(), std::ssize(expected.examples));
  for (int64_t row = 0; row < shards.rows(); ++row) {
    const auto [first, last] = shards.sequences_of_row(row);
    ASSERT_EQ(last - first, 2);
    const auto& [chosen, rejected] = expected.examples[static_cast<size_t>(row)];
    SftExample found;
    shards.append_sequence(first, found.input_ids, found.labels);
    EXPECT_EQ(found.input_ids, chosen.input_ids);
    EXPECT_EQ(found.labels, chosen.labels);
    found = {};
    shards.append_sequence(first + 1, found.input_ids, found.labels);
    EXPECT_EQ(found.input_ids, rejected.input_ids);
    EXPECT_EQ(found.labels, rejected.labels);
  }
  EXPECT_EQ(shards.manifest().warnings, expected.warnings);
}

TEST_P(ShardKinds, TextOfManyBlocksComesBack) {
  RandomStream random(5, RandomPurpose::test);
  std::string noise(300000, ' ');
  for (char& c : noise) c = static_cast<char>('a' + random.below(26));
  write(rows(), json{{"prompt", "a"}, {"long", noise}}.dump() + "\n" + json{{"prompt", "b"}}.dump() + "\n" +
                    json{{"prompt", "c"}, {"long", std::string(200000, 'x')}}.dump() + "\n");
  const fs::path folder = tokenize(RowKind::prompt, "shards", 1 << 20);
  const Shards shards(folder);
  EXPECT_EQ(prompt_row({1}, shards.row_text(0), "shards").columns["long"], noise);
  EXPECT_EQ(prompt_row({1}, shards.row_text(2), "shards").columns["long"], std::string(200000, 'x'));
  EXPECT_EQ(prompt_row({1}, shards.row_text(1), "shards").prompt, "b");
  EXPECT_NO_THROW(verify_shards(folder));
}

TEST_P(ShardKinds, EachFlippedBitIsFoundByVerifyAndByWhoReads) {
  const fs::path folder = tokenize(RowKind::prompt), shard = folder / "shard-00001.bin";
  const std::string whole = bytes_of(shard);
  RandomStream random(3, RandomPurpose::test);
  for (int i = 0; i < 500; ++i) {
    std::string broken = whole;
    const auto at = static_cast<size_t>(random.below(whole.size()));
    broken[at] = static_cast<char>(broken[at] ^ 1 << random.below(8));
    write(shard, broken);
    try {
      verify_shards(folder);
      FAIL() << "byte " << at;
    } catch (const FormatError& error) {
      EXPECT_EQ(error.file(), shard.string());
    }
    EXPECT_THROW(read_all(folder), FormatError) << "byte " << at;
  }
  write(shard, whole);
  EXPECT_NO_THROW(verify_shards(folder));
}

TEST_P(ShardKinds, AShardCutAnywhereIsRefused) {
  write(rows(), json{{"prompt", "a"}, {"column", "b"}}.dump() + "\n");
  const fs::path folder = tokenize(RowKind::prompt), shard = folder / "shard-00000.bin";
  const std::string whole = bytes_of(shard);
  for (size_t length = 0; length < whole.size(); ++length) {
    write(shard, whole.substr(0, length));
    EXPECT_THROW(verify_shards(folder), Error) << length;
    EXPECT_THROW(read_all(folder), Error) << length;
  }
}

TEST_P(ShardKinds, PythonReadsThem) {
  if (std::system("python3 -c 'import ctypes; ctypes.CDLL(\"libzstd.so.1\")' > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "no python3 with libzstd.so.1";
  const fs::path folder = tokenize(RowKind::prompt);
  const std::string command = std::string("python3 ") + source_dir + "/tests/data/shards/read_shards.py " +
                              folder.string() + " > " + (folder_ / "read").string();
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::ifstream lines(folder_ / "read");
  const Shards shards(folder);
  std::string line;
  for (int64_t row = 0; row < shards.rows(); ++row) {
    ASSERT_TRUE(std::getline(lines, line));
    const json read = json::parse(line);
    std::vector<int32_t> ids, labels;
    shards.append_sequence(shards.sequences_of_row(row).first, ids, labels);
    EXPECT_EQ(read, json::array({json::array({ids, labels}), shards.row_text(row)}));
  }
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_P(ShardKinds, KindsAreNotMerged) {
  const fs::path prompts = tokenize(RowKind::prompt, "prompts"), pairs = tokenize(RowKind::preference, "pairs");
  EXPECT_THROW(merge_shards({prompts, pairs}, folder_ / "merged"), ConfigError);
  merge_shards({prompts, prompts}, folder_ / "merged");
  EXPECT_EQ(Shards(folder_ / "merged").rows(), 80);
  EXPECT_EQ(read_shard_manifest(folder_ / "merged").totals.columns.at("hint"), 60);
}

std::string name_of(const testing::TestParamInfo<Compression>& info) {
  return info.param == Compression::zstd ? "zstd" : "none";
}
INSTANTIATE_TEST_SUITE_P(, ShardKinds, testing::Values(Compression::none, Compression::zstd), name_of);

}  // namespace
}  // namespace lathe::data
