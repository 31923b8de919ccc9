// lathe-model where a file cannot be written whole: an error that names it, and nothing of the result.
#include "tests/programs/program_test.h"

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
  const std::string adapter = LATHE_SOURCE_DIR "/tests/golden/peft_adapter/all_linear";
  const std::string command = "bin/lathe-model merge " + model_ + " --adapter " + adapter + " " + result_;
  for (const int limit : {4, 200}) {
    EXPECT_EQ(run_within(limit, command), 1) << limit;
    EXPECT_NE(err().find("model.safetensors"), std::string::npos) << err();
    expect_nothing_left();
  }
  ASSERT_EQ(run({"bin/lathe-model", "merge", model_, "--adapter", adapter, result_}), 0) << err();
}

}  // namespace
}  // namespace lathe
