// What people hand over by mistake or by malice, to lathe-data tokenize and to lathe-train alike: an error with the
// file and the way out, in bounded time and memory, and nothing left behind.
#include "tests/data/readers/packed_text.h"
#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class BadInput : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::vector<std::string> tokenize(const std::string& input, const std::string& output = "shards") const {
    return {"bin/lathe-data", "tokenize", path(input), "--model", path("model"), "--output", path(output)};
  }
  void shell(const std::string& command) const {
    ASSERT_EQ(run({"/bin/bash", "-c", "cd " + folder_.string() + " && " + command}), 0) << err();
  }
  // Within 1 GiB of memory beside what files are mapped.
  int run_bounded(const std::vector<std::string>& command) const {
    std::vector<std::string> bounded = {"/bin/bash", "-c", "ulimit -d 1048576; exec \"$@\"", "bash"};
    bounded.insert(bounded.end(), command.begin(), command.end());
    return run(bounded);
  }
  void expect_refused(const std::string& input, const std::string& reason) const {
    for (const bool training : {false, true}) {
      const int code = run_bounded(training ? arguments("run", {"--dataset", path(input)}) : tokenize(input));
      EXPECT_TRUE(code == 1 || code == 2) << input << ": " << code;
      EXPECT_NE(err().find(reason), std::string::npos) << err();
      EXPECT_NE(err().find(fs::path(input).filename().string()), std::string::npos) << err();
      EXPECT_FALSE(fs::exists(folder_ / "run"));
      EXPECT_FALSE(fs::exists(folder_ / "shards/manifest.json"));
      fs::remove_all(folder_ / "shards");
    }
  }
  void make_shards() const { ASSERT_EQ(run(tokenize("rows.jsonl")), 0) << err(); }
  // By whoever reads shards.
  void expect_shards_refused(const std::string& reason) const {
    for (const std::vector<std::string>& command :
         {std::vector<std::string>{"bin/lathe-data", "verify", path("shards")},
          arguments("run", {"--dataset", path("shards")})}) {
      EXPECT_NE(run(command), 0);
      EXPECT_NE(err().find(reason), std::string::npos) << err();
    }
  }
};

TEST_F(BadInput, PackedFilesThatAreCutShortOrUnpackToOneEndlessLine) {
  shell("gzip -k rows.jsonl && head -c 500 rows.jsonl.gz > cut.jsonl.gz");
  expect_refused("cut.jsonl.gz", "cut short");
  shell("(printf '{\"text\": \"'; head -c 70M /dev/zero | tr '\\0' x) | gzip -1 > bomb.jsonl.gz");
  expect_refused("bomb.jsonl.gz", "line 1: is longer than 64 MiB");
}

TEST_F(BadInput, PackedFilesInPackedFilesAndARowOfAGibibyteInOne) {
  const std::string piece = data::zstd(std::string(64 << 20, 'x'));  // frames, one after another, are one file
  std::string row = data::zstd("{\"input_ids\": [1, 2, 3]}\n{\"text\": \"");
  for (int i = 0; i < 16; ++i) row += piece;
  ASSERT_LT(row.size(), size_t{1} << 20);
  std::ofstream(folder_ / "row.jsonl.zst", std::ios::binary) << row;
  expect_refused("row.jsonl.zst", "line 2: is longer than 64 MiB");
  std::ofstream(folder_ / "twice.jsonl.zst", std::ios::binary) << data::zstd(row);
  expect_refused("twice.jsonl.zst", "is packed twice");
  std::ofstream(folder_ / "twice.jsonl.gz", std::ios::binary) << data::gzip(row);
  expect_refused("twice.jsonl.gz", "is packed twice");
}

TEST_F(BadInput, ARowOfAGibibyte) {
  std::ofstream(folder_ / "long.jsonl") << "{\"input_ids\": [1, 2, 3]}\n{\"text\": \"";
  fs::resize_file(folder_ / "long.jsonl", uint64_t{1} << 30);
  expect_refused("long.jsonl", "line 2: is longer than 64 MiB");
}

// However little memory there is, and wherever it ends: the program says so.
TEST_F(BadInput, ARowThatMemoryDoesNotHold) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer's own memory counts";
#endif
  {
    std::ofstream rows(folder_ / "wide.jsonl");
    rows << "{\"input_ids\": [7";
    for (int i = 0; i < 400000; ++i) rows << ",7";
    rows << "]}\n";
  }
  const auto inspect = [&](const char* rows, int mib) {
    return run({"/bin/bash", "-c", "ulimit -c 0 -d " + std::to_string(mib << 10) + "; exec \"$@\"", "bash",
                "bin/lathe-data", "inspect", path(rows), "--model", path("model"), "--threads", "1"});
  };
  // What the program itself takes: more where it is linked with CUDA's libraries.
  int own = 12;
  while (own < 200 && inspect("rows.jsonl", own) != 0) own += 4;
  int refused = 0, read = 0;
  for (int mib = own; mib <= own + 60; mib += 4) {
    const int code = inspect("wide.jsonl", mib);
    ASSERT_TRUE(code == 0 || code == 1) << mib << " MiB: " << code << "\n" << err();
    ++(code == 0 ? read : refused);
    if (code == 1) {
      EXPECT_TRUE(err().find("out of memory") != std::string::npos ||
                  err().find("line 1: is too large to be parsed") != std::string::npos)
          << mib << " MiB\n"
          << err();
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(read, 0);
}

TEST_F(BadInput, OtherEncodingsAndOtherFormats) {
  std::ofstream(folder_ / "wide.jsonl", std::ios::binary) << std::string("\xFF\xFE{\0\"\0", 6);
  expect_refused("wide.jsonl", "this is UTF-16");
  std::ofstream(folder_ / "table.jsonl", std::ios::binary) << "PAR1 and so on";
  expect_refused("table.jsonl", "this is Parquet");
  std::ofstream(folder_ / "array.jsonl") << "[{\"text\": \"a\"}]";
  expect_refused("array.jsonl", "this is a JSON array");
}

TEST_F(BadInput, FoldersThatHoldNoRowsAndFilesThatAreNotThere) {
  fs::create_directory(folder_ / "nothing");
  expect_refused("nothing", "is a folder that neither lathe-data tokenize has finished");
  expect_refused("absent.jsonl", "absent.jsonl");
  std::ofstream(folder_ / "empty.jsonl") << "";
  expect_refused("empty.jsonl", "");
  EXPECT_EQ(run({"bin/lathe-data", "documents", path("nothing"), "--output", path("out.jsonl")}), 2);
  EXPECT_NE(err().find("holds no .txt"), std::string::npos) << err();
}

TEST_F(BadInput, TwoInputsWithTheSameOutput) {
  make_shards();
  std::ofstream(folder_ / "other.jsonl") << "{\"input_ids\": [1, 2, 3]}\n";
  const std::string before = bytes_of(folder_ / "shards/manifest.json");
  EXPECT_EQ(run(tokenize("other.jsonl")), 2);
  EXPECT_NE(err().find("other rows or settings"), std::string::npos) << err();
  EXPECT_EQ(bytes_of(folder_ / "shards/manifest.json"), before);
}

TEST_F(BadInput, ShardsOfANewerVersionAndManifestsEditedByHand) {
  make_shards();
  const std::string manifest = bytes_of(folder_ / "shards/manifest.json");
  std::string edited = manifest;
  edited.replace(edited.find("\"rows\": 24"), 10, "\"rows\": 25");
  std::ofstream(folder_ / "shards/manifest.json") << edited;
  expect_shards_refused("was changed after it was written");
  edited = manifest;
  edited.replace(edited.find("lathe shards 1"), 14, "lathe shards 9");
  std::ofstream(folder_ / "shards/manifest.json") << edited;
  expect_shards_refused("use the program that wrote it, or a newer one");
  std::ofstream(folder_ / "shards/manifest.json") << manifest;
  std::fstream(folder_ / "shards/shard-00000.bin", std::ios::in | std::ios::out | std::ios::binary).seekp(8).put(9);
  expect_shards_refused("is a shard of version 9");
}

}  // namespace
}  // namespace lathe
