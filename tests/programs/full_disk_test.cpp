// Programs where a file cannot be written whole: an error that names it, and nothing of the result.
#include "tests/programs/program_test.h"
#include "tests/support/source_dir.h"

namespace lathe {
namespace {

class FullDisk : public ProgramTest {
 protected:
  // No file of the program may grow beyond so many KiB.
  int run_within(int kibibytes, const std::string& command) const {
    return run({"/bin/bash", "-c", "trap '' XFSZ; ulimit -f " + std::to_string(kibibytes) + "; exec " + command});
  }
  // The model, what the command itself printed, and nothing else.
  void expect_nothing_left() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      EXPECT_TRUE(name == "model" || name == "rows.jsonl" || name == "out" || name == "err") << entry.path();
    }
  }
  std::string model_ = (folder_ / "model").string(), result_ = (folder_ / "result").string();
};

TEST_F(FullDisk, QuantizeLeavesNothingHalfWritten) {
  const std::string command = "bin/lathe-model quantize " + model_ + " " + result_;
  for (const int limit : {4, 60}) {
    EXPECT_EQ(run_within(limit, command), 1) << limit;
    EXPECT_NE(err().find("model.safetensors"), std::string::npos) << err();
    expect_nothing_left();
  }
  ASSERT_EQ(run({"bin/lathe-model", "quantize", model_, result_}), 0) << err();
  EXPECT_TRUE(std::filesystem::exists(folder_ / "result/model.safetensors"));
}

TEST_F(FullDisk, MergeLeavesNothingHalfWritten) {
  const std::string adapter = std::string(source_dir) + "/tests/golden/peft_adapter/all_linear";
  const std::string command = "bin/lathe-model merge " + model_ + " --adapter " + adapter + " " + result_;
  for (const int limit : {4, 200}) {
    EXPECT_EQ(run_within(limit, command), 1) << limit;
    EXPECT_NE(err().find("model.safetensors"), std::string::npos) << err();
    expect_nothing_left();
  }
  ASSERT_EQ(run({"bin/lathe-model", "merge", model_, "--adapter", adapter, result_}), 0) << err();
}

// What was tokenised stays, and the same command goes on from there.
TEST_F(FullDisk, TokenizeKeepsTheWholeShardsAndGoesOn) {
  const std::string rows = (folder_ / "rows.jsonl").string();
  std::ofstream many(rows);
  for (int i = 0; i < 400; ++i) many << nlohmann::json{{"input_ids", {i % 320, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}} << "\n";
  many.close();
  const auto command = [&](const std::string& output) {
    return "bin/lathe-data tokenize " + rows + " --model " + model_ + " --output " + output + " --shard_tokens 300";
  };
  ASSERT_EQ(run({"/bin/bash", "-c", "exec " + command((folder_ / "whole").string())}), 0) << err();
  for (const int limit : {1, 2, 3}) {
    EXPECT_EQ(run_within(limit, command(result_)), 1) << limit;
    EXPECT_NE(err().find("result/"), std::string::npos) << err();
    EXPECT_FALSE(std::filesystem::exists(folder_ / "result/manifest.json"));
    EXPECT_EQ(run({"bin/lathe-train", "sft", "--model", model_, "--dataset", result_, "--output_dir", model_ + "/run"}),
              2)
        << "a folder that is not finished is no dataset";
  }
  ASSERT_EQ(run({"/bin/bash", "-c", "exec " + command(result_)}), 0) << err();
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "whole")) {
    EXPECT_EQ(bytes_of(entry.path()), bytes_of(folder_ / "result" / entry.path().filename())) << entry.path();
    ++files;
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / "result"), {}), files);
  EXPECT_GT(files, 3);
}

TEST_F(FullDisk, DocumentsLeaveNothingHalfWritten) {
  std::ofstream page(folder_ / "model/page.md");
  for (int i = 0; i < 400; ++i) page << "Paragraph " << i << " of some text.\n\n";
  page.close();
  const std::string command = "bin/lathe-data documents " + model_ + "/page.md --split paragraph --output " + result_;
  EXPECT_EQ(run_within(4, command), 1);
  EXPECT_NE(err().find("result"), std::string::npos) << err();
  expect_nothing_left();
  EXPECT_EQ(run({"/bin/bash", "-c", "exec " + command}), 0) << err();
}

}  // namespace
}  // namespace lathe
