// Runs the programs themselves, on a tiny model with rows, in a folder that goes away.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/json_value.h"
#include "core/random.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe {

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// A folder with a MODEL (the tiny golden Llama with a tokenizer) and rows of ids for it.
class ProgramTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(std::filesystem::exists("bin/lathe-train")) << "run from the build folder, after building the programs";
    const std::filesystem::path golden = std::filesystem::path(source_dir) / "tests/golden";
    std::filesystem::create_directory(folder_ / "model");
    for (const char* file : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(golden / "tiny_llama/untied" / file, folder_ / "model" / file);
    std::filesystem::copy_file(golden / "tokenizer/byte_level/tokenizer.json", folder_ / "model/tokenizer.json");
    RandomStream random(1, RandomPurpose::test);
    std::ofstream rows(folder_ / "rows.jsonl");
    for (int row = 0; row < 24; ++row) {
      nlohmann::json ids = nlohmann::json::array();
      for (uint64_t i = 0, length = 6 + random.below(12); i < length; ++i) ids.push_back(random.below(320));
      rows << nlohmann::json{{"input_ids", ids}}.dump() << "\n";
    }
  }

  // A --dataset among `more` takes the place of the one before: given twice, they would be mixed.
  static std::vector<std::string> joined(std::vector<std::string> all, const std::vector<std::string>& more) {
    const auto before = std::find(all.begin(), all.end(), "--dataset");
    if (before != all.end() && std::find(more.begin(), more.end(), "--dataset") != more.end())
      all.erase(before, before + 2);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  std::vector<std::string> arguments(const std::string& output_dir, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"bin/lathe-train", "sft",
                                    "--model",         (folder_ / "model").string(),
                                    "--dataset",       (folder_ / "rows.jsonl").string(),
                                    "--output_dir",    (folder_ / output_dir).string(),
                                    "--max-steps",     "6",
                                    "--save_steps",    "2",
                                    "--logging_steps", "1",
                                    "--lora_r",        "4"};
    return joined(std::move(all), more);
  }

  // Standard output and error go to files in the folder.
  pid_t start(const std::vector<std::string>& arguments) const {
    const pid_t child = ::fork();
    if (child != 0) return child;
    if (::freopen((folder_ / "out").c_str(), "w", stdout) == nullptr ||
        ::freopen((folder_ / "err").c_str(), "w", stderr) == nullptr)
      ::_exit(99);
    std::vector<char*> raw;
    for (const std::string& argument : arguments) raw.push_back(const_cast<char*>(argument.c_str()));
    raw.push_back(nullptr);
    ::execv(raw[0], raw.data());
    ::_exit(98);
  }
  int run(const std::vector<std::string>& arguments) const {
    int status = 0;
    ::waitpid(start(arguments), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string out() const { return bytes_of(folder_ / "out"); }
  std::string err() const { return bytes_of(folder_ / "err"); }

  TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
};

}  // namespace lathe
