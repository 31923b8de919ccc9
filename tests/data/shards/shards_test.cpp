// Rows → shards → rows; the format as another language reads it; faults of files; killed and gone on with.
#include "data/shards/shards.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "data/shards/shard_tokenization.h"
#include "tests/data/readers/packed_text.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using Sequence = std::pair<std::vector<int32_t>, std::vector<int32_t>>;
using Rows = std::vector<std::vector<Sequence>>;

std::string bytes_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}
void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files[entry.path().filename()] = bytes_of(entry.path());
  return files;
}

Rows rows_of(const fs::path& folder) {
  const Shards shards(folder);
  Rows rows;
  for (int64_t row = 0; row < shards.rows(); ++row) {
    auto& sequences = rows.emplace_back();
    const auto [first, last] = shards.sequences_of_row(row);
    for (int64_t s = first; s < last; ++s) {
      auto& [ids, labels] = sequences.emplace_back();
      shards.append_sequence(s, ids, labels);
      EXPECT_EQ(shards.sequence_tokens(s), std::ssize(ids));
    }
  }
  return rows;
}

class ShardsTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::copy_file(fs::path(source_dir) / "tests/golden/tokenizer/byte_level/tokenizer.json",
                  folder_ / "tokenizer.json");
    write(folder_ / "tokenizer_config.json", R"({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})");
    tokenizer_ = Tokenizer::from_directory(folder_);
    RandomStream random(7, RandomPurpose::test);
    for (int row = 0; row < 2300; ++row) {
      std::string words;
      for (uint64_t i = 0, count = 1 + random.below(40); i < count; ++i)
        words += (i ? " " : "") + std::string(1 + random.below(9), static_cast<char>('a' + random.below(26)));
      text_ += row % 3 == 0   ? "{\"text\": \"" + words + "\"}\n"
               : row % 3 == 1 ? "{\"prompt\": \"" + words + "\", \"completion\": \" yes\"}\n"
                              : "{\"input_ids\": [5, 6, 7, " + std::to_string(random.below(300)) + "]}\n";
    }
    write(folder_ / "rows.jsonl", text_);
  }

  ShardTokenizationSettings settings(const std::string& output) const {
    ShardTokenizationSettings settings;
    settings.inputs = {(folder_ / "rows.jsonl").string()};
    settings.output = folder_ / output;
    settings.model = "tiny";
    settings.rows.max_length = 48;
    settings.shard_tokens = 6000;
    return settings;
  }
  void tokenize(const ShardTokenizationSettings& settings) const {
    ShardTokenization work(settings, *tokenizer_, nullptr);
    while (work.step()) {
    }
  }
  std::string error(const ShardTokenizationSettings& settings) const {
    try {
      tokenize(settings);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  Rows raw(const ShardTokenizationSettings& settings) const {
    const SftRows rows = read_sft_rows(folder_ / "rows.jsonl", *tokenizer_, nullptr, settings.rows);
    Rows result;
    if (!settings.rows.packing) {
      for (const SftExample& example : rows.examples) result.push_back({{example.input_ids, example.labels}});
      return result;
    }
    for (const PackedExample& packed :
         pack_examples(rows.examples, *settings.rows.max_length, settings.packing_strategy).examples) {
      auto& sequences = result.emplace_back();
      auto id = packed.input_ids.begin(), label = packed.labels.begin();
      for (const int32_t length : packed.sample_lengths) {
        sequences.push_back({{id, id + length}, {label, label + length}});
        id += length;
        label += length;
      }
    }
    return result;
  }

  TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path();
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string text_;
};

TEST_F(ShardsTest, GiveBackTheRowsOfTheFileWithEveryWayOfPacking) {
  const char* strategies[] = {"none", "bfd", "bfd_split", "wrapped"};
  for (const std::string name : strategies) {
    ShardTokenizationSettings options = settings(name);
    options.rows.packing = name != "none";
    if (options.rows.packing) options.packing_strategy = packing_strategy(options.packing_strategy_name = name);
    tokenize(options);
    EXPECT_EQ(rows_of(folder_ / name), raw(options)) << name;
    EXPECT_GT(Shards(folder_ / name).manifest().files.size(), 2u) << name;
    EXPECT_NO_THROW(verify_shards(folder_ / name));
    EXPECT_EQ(fs::exists(folder_ / name / "progress.json"), false);
  }
}

TEST_F(ShardsTest, LabelsThatAreNeitherTheIdNorIgnoredAreKept) {
  write(folder_ / "rows.jsonl",
        "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [1, 2, 3], \"labels\": [-100, 9, 3]}\n{\"input_ids\": [4, 5]}\n");
  tokenize(settings("out"));
  EXPECT_EQ(rows_of(folder_ / "out"), raw(settings("out")));
}

TEST_F(ShardsTest, PackedInputsAndAnyNumberOfThreadsMakeTheSameShards) {
  tokenize(settings("plain"));
  const auto plain = files_of(folder_ / "plain");
  set_thread_count(1);
  tokenize(settings("single"));
  set_thread_count(3);
  EXPECT_EQ(files_of(folder_ / "single"), plain);
  write(folder_ / "rows.jsonl.zst", zstd(text_));
  ShardTokenizationSettings packed = settings("packed");
  packed.inputs = {(folder_ / "rows.jsonl.zst").string()};
  tokenize(packed);
  EXPECT_EQ(rows_of(folder_ / "packed"), rows_of(folder_ / "plain"));
}

TEST_F(ShardsTest, ThirtyLinesOfPythonReadThem) {
  ShardTokenizationSettings options = settings("out");
  options.rows.packing = true;
  tokenize(options);
  const std::string command = std::string("python3 ") + source_dir + "/tests/data/shards/read_shards.py " +
                              (folder_ / "out").string() + " > " + (folder_ / "read").string();
  if (std::system("python3 --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no python3";
  ASSERT_EQ(std::system(command.c_str()), 0);
  Rows read;
  std::ifstream lines(folder_ / "read");
  for (std::string line; std::getline(lines, line);)
    read.push_back(nlohmann::json::parse(line).get<std::vector<Sequence>>());
  EXPECT_EQ(read, rows_of(folder_ / "out"));
}

TEST_F(ShardsTest, EachFlippedBitIsFoundByVerifyAndByWhoReadsTheRows) {
  tokenize(settings("out"));
  const fs::path shard = folder_ / "out/shard-00001.bin", manifest = folder_ / "out/manifest.json";
  RandomStream random(3, RandomPurpose::test);
  for (int i = 0; i < 300; ++i) {
    const fs::path& file = i % 6 == 0 ? manifest : shard;
    const std::string whole = bytes_of(file);
    std::string broken = whole;
    const auto at = static_cast<size_t>(random.below(whole.size()));
    broken[at] = static_cast<char>(broken[at] ^ 1 << random.below(8));
    write(file, broken);
    EXPECT_THROW(verify_shards(folder_ / "out"), Error) << file << " byte " << at;
    EXPECT_THROW(rows_of(folder_ / "out"), Error) << file << " byte " << at;
    write(file, whole);
  }
  EXPECT_NO_THROW(verify_shards(folder_ / "out"));
}

TEST_F(ShardsTest, AShardCutAnywhereIsRefused) {
  write(folder_ / "rows.jsonl", "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [4, 5]}\n");
  tokenize(settings("out"));
  const fs::path shard = folder_ / "out/shard-00000.bin";
  const std::string whole = bytes_of(shard);
  for (size_t length = 0; length < whole.size(); ++length) {
    write(shard, whole.substr(0, length));
    EXPECT_THROW(verify_shards(folder_ / "out"), Error) << length;
  }
}

TEST_F(ShardsTest, KilledAnywhereTheSameCommandGoesOnToTheSameBytes) {
  for (const bool packing : {false, true}) {
    ShardTokenizationSettings options = settings(packing ? "packed" : "apart");
    options.rows.packing = packing;
    set_thread_count(1);  // a process that forks has no other threads
    tokenize(options);
    const auto whole = files_of(options.output);
    for (int kills = 1; kills < 7; ++kills) {
      fs::remove_all(options.output);
      for (int attempt = 0; attempt < kills; ++attempt) {
        const pid_t child = ::fork();
        if (child == 0) {
          ::alarm(60);
          try {
            ShardTokenization work(options, *tokenizer_, nullptr);
            // Dies in the middle of writing some file: the kernel ends who writes beyond the limit.
            const rlimit limit = {static_cast<rlim_t>(900 + 1900 * attempt + 633 * kills), RLIM_INFINITY};
            ::setrlimit(RLIMIT_FSIZE, &limit);
            while (work.step()) {
            }
          } catch (const std::exception&) {
          }
          ::_exit(0);
        }
        int status = 0;
        ::waitpid(child, &status, 0);
      }
      tokenize(options);
      EXPECT_EQ(files_of(options.output), whole) << kills;
    }
  }
}

TEST_F(ShardsTest, AnInputThatChangedSinceIsNotGoneOnWith) {
  ShardTokenizationSettings options = settings("out");
  write(folder_ / "rows.jsonl", text_ + "{\"nothing\": 1}\n");
  EXPECT_NE(error(options).find("line 2301: has none of"), std::string::npos);
  EXPECT_NE(error(settings("out")).find("line 2301"), std::string::npos);
  write(folder_ / "rows.jsonl", "{\"text\": \"another\"}\n" + text_);
  EXPECT_NE(error(options).find("changed since"), std::string::npos) << error(options);
  write(folder_ / "rows.jsonl", "{\"text\": \"another\"}\n");
  EXPECT_NE(error(options).find("changed since"), std::string::npos);
  write(folder_ / "rows.jsonl", text_);
  tokenize(options);
  EXPECT_EQ(rows_of(folder_ / "out"), raw(options));
}

TEST_F(ShardsTest, BadRowsAreSkippedAndListedWhereAsked) {
  write(folder_ / "rows.jsonl", "{\"text\": \"a\"}\n{\"broken\n{\"text\": \"b\"}\n[1]\n");
  ShardTokenizationSettings options = settings("out");
  EXPECT_NE(error(options).find("rows.jsonl: line 2: "), std::string::npos);
  options.bad_rows = BadRows::skip;
  options.output = folder_ / "skipped";
  tokenize(options);
  const ShardManifest manifest = read_shard_manifest(options.output);
  EXPECT_EQ(manifest.totals.rows, 2);
  EXPECT_EQ(manifest.totals.bad_rows, 2);
  ASSERT_EQ(manifest.totals.first_bad_rows.size(), 2u);
  EXPECT_EQ(manifest.totals.first_bad_rows[1].line, 4);
}

TEST_F(ShardsTest, AFolderOfOtherShardsOrFilesIsLeftAlone) {
  tokenize(settings("out"));
  const auto before = files_of(folder_ / "out");
  EXPECT_EQ(error(settings("out")), "no error");  // the same again
  ShardTokenizationSettings other = settings("out");
  other.rows.max_length = 20;
  EXPECT_NE(error(other).find("other rows or settings"), std::string::npos);
  write(folder_ / "rows.jsonl", text_ + "{\"text\": \"more\"}\n");
  EXPECT_NE(error(settings("out")).find("other rows or settings"), std::string::npos);
  EXPECT_EQ(files_of(folder_ / "out"), before);
  fs::create_directory(folder_ / "used");
  write(folder_ / "used/notes", "mine");
  EXPECT_NE(error(settings("used")).find("holds other files"), std::string::npos);
  const ShardTokenization held(settings("held"), *tokenizer_, nullptr);
  EXPECT_NE(error(settings("held")).find("another process"), std::string::npos);
}

TEST_F(ShardsTest, PartsTakeEveryRowOnceAndMerge) {
  tokenize(settings("whole"));
  std::vector<fs::path> parts;
  for (const int64_t part : {1, 2, 3}) {
    ShardTokenizationSettings options = settings("part-" + std::to_string(part));
    options.part = {part, 3};
    tokenize(options);
    parts.push_back(options.output);
  }
  merge_shards(parts, folder_ / "merged");
  EXPECT_NO_THROW(verify_shards(folder_ / "merged"));
  Rows merged = rows_of(folder_ / "merged"), whole = rows_of(folder_ / "whole");
  std::ranges::sort(merged);
  std::ranges::sort(whole);
  EXPECT_EQ(merged, whole);
  EXPECT_EQ(read_shard_manifest(folder_ / "merged").totals.row_lengths,
            read_shard_manifest(folder_ / "whole").totals.row_lengths);
  EXPECT_THROW(merge_shards(parts, folder_ / "merged"), ConfigError);
}

}  // namespace
}  // namespace lathe::data
