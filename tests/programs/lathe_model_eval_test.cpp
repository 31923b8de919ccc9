// lathe-model eval against transformers, and its gate.
#include <cmath>

#include "tests/programs/program_test.h"
#include "tests/support/source_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class LatheModelEval : public ProgramTest {
 protected:
  int eval(std::vector<std::string> more) const {
    more.insert(more.begin(), {"bin/lathe-model", "eval", (folder_ / "model").string(), "--dtype", "f32", "--json"});
    return run(more);
  }
  nlohmann::json result() const { return nlohmann::json::parse(out(), nullptr, false); }
  std::string file(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  const fs::path golden_ = fs::path(source_dir) / "tests/golden/eval";
  const nlohmann::json expected_ = nlohmann::json::parse(bytes_of(golden_ / "expected.json"));
  const std::string text_ = (golden_ / "text.txt").string(), choices_ = (golden_ / "choices.jsonl").string();
};

// f32 sums of a tiny model: 1e-5 of a loss of 6 is a hundred roundings.
constexpr double loss_tolerance = 6e-5;

TEST_F(LatheModelEval, PerplexityInWindowsIsThatOfTransformers) {
  for (const auto& window : expected_["windows"]) {
    ASSERT_EQ(eval({"--text", text_, "--max_length", std::to_string(window["max_length"].get<int>()), "--stride",
                    std::to_string(window["stride"].get<int>())}),
              0)
        << err();
    const nlohmann::json found = result();
    EXPECT_EQ(found["tokens"], window["tokens"]);
    EXPECT_NEAR(found["loss"].get<double>(), window["loss"].get<double>(), loss_tolerance);
    EXPECT_NEAR(found["perplexity"].get<double>(), std::exp(found["loss"].get<double>()), 1e-9);
    EXPECT_GT(found["loss_stderr"].get<double>(), 0);
    EXPECT_NEAR(found["perplexity_stderr"].get<double>(),
                found["perplexity"].get<double>() * found["loss_stderr"].get<double>(), 1e-9);
  }
}

TEST_F(LatheModelEval, ATextOfOneWindowHasNoStandardError) {
  ASSERT_EQ(eval({"--text", file("short", "AB CD EF")}), 0) << err();
  EXPECT_TRUE(result()["loss_stderr"].is_null());
  EXPECT_TRUE(result()["perplexity"].is_number());
}

TEST_F(LatheModelEval, ChoicesAreScoredAsTransformersScoresThem) {
  const std::string predictions = (folder_ / "predictions.jsonl").string();
  ASSERT_EQ(eval({"--dataset", choices_, "--metric", "choice", "--predictions", predictions}), 0) << err();
  const nlohmann::json found = result();
  EXPECT_EQ(found["accuracy"], expected_["accuracy"]);
  EXPECT_EQ(found["accuracy_norm"], expected_["accuracy_norm"]);
  const double p = found["accuracy"];
  EXPECT_NEAR(found["accuracy_stderr"].get<double>(), std::sqrt(p * (1 - p) / 23), 1e-12);
  std::ifstream lines(predictions);
  size_t row = 0;
  for (std::string line; std::getline(lines, line); ++row) {
    const auto scores = nlohmann::json::parse(line)["logprobs"];
    for (size_t i = 0; i < scores.size(); ++i)
      EXPECT_NEAR(scores[i].get<double>(), expected_["logprobs"][row][i].get<double>(), 1e-3) << row << " " << i;
  }
  EXPECT_EQ(row, expected_["logprobs"].size());
}

TEST_F(LatheModelEval, AnAnswerIsAnIndexALetterALabelOrTheChoice) {
  const auto correct = [&](const std::string& row) {
    EXPECT_EQ(eval({"--dataset", file("rows", row), "--metric", "choice"}), 0) << err();
    return result()["correct"].get<int>();
  };
  const std::string start = R"({"question": "AB CD", "choices": ["AB", "CD EF"], "answer": )";
  const int first = correct(start + "0}");
  EXPECT_EQ(correct(start + "1}"), 1 - first);
  EXPECT_EQ(correct(start + R"("A"})"), first);
  EXPECT_EQ(correct(start + R"("CD EF"})"), 1 - first);
  const std::string labelled =
      R"({"question": "AB CD", "choices": {"text": ["AB", "CD EF"], "label": ["1", "2"]}, "answerKey": )";
  EXPECT_EQ(correct(labelled + R"("1"})"), first);
  EXPECT_EQ(correct(labelled + R"("2"})"), 1 - first);
}

TEST_F(LatheModelEval, RowsThatCannotBeScoredAreNamedByTheirLine) {
  for (const char* row :
       {R"({"question": "AB"})", R"({"question": "AB", "choices": ["C"], "answer": 0})",
        R"({"question": "AB", "choices": ["C", "D"], "answer": 2})",
        R"({"question": "AB", "choices": ["C", "D"], "answer": "Z"})",
        R"({"question": 3, "choices": ["C", "D"], "answer": 0})",
        R"({"question": "AB", "choices": ["C", ""], "answer": 0})",
        R"({"question": "AB", "choices": {"text": ["C", "D"], "label": ["1"]}, "answer": "1"})", "[", "7"}) {
    const std::string rows = file("rows", R"({"question": "AB", "choices": ["C", "D"], "answer": 0})"
                                          "\n" +
                                              std::string(row));
    EXPECT_EQ(eval({"--dataset", rows, "--metric", "choice"}), 1) << row;
    EXPECT_NE(err().find("line 2"), std::string::npos) << row << ": " << err();
  }
}

TEST_F(LatheModelEval, AGateIsPassedOrExitsWithThree) {
  const auto gated = [&](const std::string& bounds) {
    return eval({"--text", text_, "--max_length", "64", "--gate", file("gate.yaml", bounds)});
  };
  EXPECT_EQ(gated("loss: 6.1\nperplexity: 500\n"), 0) << err();
  EXPECT_EQ(result()["gate"]["passed"], true);
  EXPECT_EQ(gated("loss: 6.0\n"), 3);
  EXPECT_EQ(result()["gate"]["failures"].size(), 1u);
  EXPECT_NE(err().find("loss is 6.05306, and must be at most 6"), std::string::npos) << err();
  EXPECT_EQ(gated("accuracy: 0.5\n"), 2);
  EXPECT_NE(err().find("loss"), std::string::npos) << err();
  EXPECT_EQ(gated("loss: low\n"), 2);
  EXPECT_EQ(eval({"--dataset", choices_, "--metric", "choice", "--gate", file("gate.yaml", "accuracy: 0.99\n")}), 3);
  EXPECT_NE(err().find("at least 0.99"), std::string::npos) << err();
}

TEST_F(LatheModelEval, WhatCannotBeMeasuredIsSaidBeforeAModelIsLoaded) {
  EXPECT_EQ(eval({}), 2);
  EXPECT_EQ(eval({"--text", text_, "--dataset", choices_}), 2);
  EXPECT_EQ(eval({"--dataset", choices_, "--metric", "best"}), 2);
  EXPECT_EQ(eval({"--text", text_, "--max_length", "100000"}), 2);
  EXPECT_EQ(eval({"--text", text_, "--max_length", "64", "--stride", "64"}), 2);
  EXPECT_EQ(eval({"--text", file("empty", "")}), 1);
}

}  // namespace
}  // namespace lathe
