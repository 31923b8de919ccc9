// A program as a reward: what it is told, and everything that it can do wrong.
#include "train/grpo/rewards/reward_process.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/json.h"
#include "tests/support/temporary_folder.h"

namespace lathe::train {
namespace {

class RewardProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int64_t line = 1; line <= 3; ++line)
      rows_.push_back({.file = "rows.jsonl",
                       .line = line,
                       .ids = {1},
                       .prompt = "what?",
                       .columns = {{"answer", line}, {"tags", {"a", nullptr}}}});
    rows_[2].prompt = {{{"role", "user"}, {"content", "what?"}}};
    for (const data::PromptRow& row : rows_) completions_.push_back({&row, "line\n\"two\"", {4, 5}, false});
  }
  std::string error_of(RewardProcess& process) {
    try {
      process.score(completions_);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string error_of(const std::string& command, double timeout = 20) {
    RewardProcess process(command, timeout);
    return error_of(process);
  }

  std::vector<data::PromptRow> rows_;
  std::vector<ScoredCompletion> completions_;
};

TEST_F(RewardProcessTest, IsToldEverythingAndAnswersInEveryForm) {
  const TemporaryFolder folder;
  const std::string heard = (folder.path() / "heard").string();
  RewardProcess process(
      "n=0; while IFS= read -r line; do printf '%s\\n' \"$line\" >> " + heard +
          "; n=$((n+1)); case $n in 1) echo 0.5;; 2) echo null;; *) echo \"{\\\"reward\\\": -$n}\";; esac; done",
      20);
  EXPECT_EQ(process.score(completions_), (Rewards{0.5, std::nullopt, -3.0}));
  EXPECT_EQ(process.score(completions_), (Rewards{-4.0, -5.0, -6.0})) << "started once and kept";
  std::ifstream file(heard);
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(
      nlohmann::ordered_json::parse(line),
      nlohmann::ordered_json::parse(R"({"prompt": "what?", "completion": "line\n\"two\"", "completion_ids": [4, 5],
                                             "answer": 1, "tags": ["a", null]})"));
  std::getline(file, line);
  std::getline(file, line);
  EXPECT_EQ(nlohmann::ordered_json::parse(line)["completion"],
            nlohmann::ordered_json::parse(R"([{"role": "assistant", "content": "line\n\"two\""}])"))
      << "as the prompt is, a list of messages";
}

TEST_F(RewardProcessTest, ManyCompletionsDoNotBlock) {
  // More than pipes hold, in both directions, from a program that reads everything before it answers.
  std::vector<ScoredCompletion> many(20000, completions_[0]);
  RewardProcess process("head -n 20000 | sed 's/.*/1/'", 60);
  EXPECT_EQ(process.score(many), Rewards(20000, 1.0));
}

TEST_F(RewardProcessTest, EachFaultNamesTheRow) {
  for (const auto& [command, line, reason] :
       {std::tuple("read -r x; echo 1; exit 3", 2, "it ended with exit code 3 and answered 1 of 3"),
        {"exit 0", 1, "it ended with exit code 0 and answered 0 of 3"},
        {"kill -SEGV $$", 1, "it was ended by signal 11"},
        {"lathe-no-such-program", 1, "exit code 127"},
        {"while read -r x; do echo good; done", 1,
         "expected a number, null or {\"reward\": number or null}, found 'good'"},
        {"while read -r x; do echo nan; done", 1, "found 'nan'"},
        {"while read -r x; do echo 1e999; done", 1, "expected a number"},
        {"while read -r x; do echo '[1]'; done", 1, "found [1]"},
        {"while read -r x; do echo true; done", 1, "found true"},
        {"while read -r x; do echo '{\"score\": 1}'; done", 1, "expected a number"},
        {"read -r x; echo 1; echo; cat > /dev/null", 2, "found ''"},
        {"printf '1\\n1\\n1\\n1\\n'; cat > /dev/null", 3, "more lines than the 3"}}) {
    const std::string error = error_of(command);
    EXPECT_NE(error.find("rows.jsonl, line " + std::to_string(line) + ":"), std::string::npos) << command << "\n"
                                                                                               << error;
    EXPECT_NE(error.find(reason), std::string::npos) << command << "\n" << error;
  }
}

TEST_F(RewardProcessTest, ALateAnswerIsAnErrorAndTheProgramIsStopped) {
  const std::string error = error_of("read -r x; echo 1; exec sleep 1000", 0.2);
  EXPECT_NE(error.find("rows.jsonl, line 2: the reward of"), std::string::npos) << error;
  EXPECT_NE(error.find("no answer within reward_timeout"), std::string::npos) << error;
}

TEST_F(RewardProcessTest, AfterAFaultItIsStartedAnew) {
  const TemporaryFolder folder;
  const std::string flag = (folder.path() / "flag").string();
  RewardProcess process("if [ -e " + flag + " ]; then while read -r x; do echo 2; done; else touch " + flag + "; fi",
                        20);
  EXPECT_NE(error_of(process).find("exit code 0"), std::string::npos);
  EXPECT_EQ(process.score(completions_), (Rewards{2.0, 2.0, 2.0}));
}

}  // namespace
}  // namespace lathe::train
