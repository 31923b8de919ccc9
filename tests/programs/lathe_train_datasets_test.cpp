// Where rows come from: shards give the bits of the rows they were made of, several sources are mixed by weight.
#include <sched.h>
#include <signal.h>

#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class LatheTrainDatasets : public ProgramTest {
 protected:
  // The model knows the first 320 tokens: single characters.
  void SetUp() override {
    ProgramTest::SetUp();
    std::ofstream(folder_ / "model/tokenizer_config.json") << R"({"eos_token": "<|im_end|>"})";
    std::ofstream more(folder_ / "more.jsonl"), pairs(folder_ / "pairs.jsonl"), prompts(folder_ / "prompts.jsonl");
    for (int i = 0; i < 10; ++i) {
      const std::string letter(1, static_cast<char>('A' + i));
      more << json{{"input_ids", {i, i + 1, i + 2, 7}}}.dump() << "\n";
      pairs << json{{"prompt", letter}, {"chosen", "1" + letter}, {"rejected", letter + "22"}}.dump() << "\n";
      prompts << json{{"prompt", letter}, {"answer", i}, {"why", {{"a", nullptr}}}}.dump() << "\n";
    }
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void make_shards(const std::string& rows, const std::string& shards, const std::vector<std::string>& more) const {
    const std::vector<std::string> all = {"bin/lathe-data", "tokenize",   path(rows),       "--model", path("model"),
                                          "--output",       path(shards), "--shard_tokens", "40"};
    ASSERT_EQ(run(joined(all, more)), 0) << err();
  }
  std::vector<std::string> method(const std::string& name, const std::string& dataset, const std::string& output_dir,
                                  const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = joined(arguments(output_dir), {"--dataset", path(dataset)});
    all[1] = name;
    if (name == "grpo")
      all = joined(all, {"--num_generations", "4", "--max_completion_length", "6", "--reward_funcs", "number",
                         "--reward_column", "answer"});
    return joined(all, more);
  }
  void expect_same_adapter(const std::string& a, const std::string& b) const {
    EXPECT_EQ(bytes_of(folder_ / a / "adapter_model.safetensors"), bytes_of(folder_ / b / "adapter_model.safetensors"));
  }
  void expect_same_result(const std::string& a, const std::string& b) const {
    expect_same_adapter(a, b);
    EXPECT_EQ(bytes_of(folder_ / a / "metrics.jsonl"), bytes_of(folder_ / b / "metrics.jsonl"));
  }
};

TEST_F(LatheTrainDatasets, ShardsGiveTheBitsOfTheirRowsForEveryMethod) {
  const std::tuple<const char*, const char*, const char*> methods[] = {
      {"sft", "rows.jsonl", "sft"}, {"dpo", "pairs.jsonl", "preference"}, {"grpo", "prompts.jsonl", "prompt"}};
  for (const auto& [name, rows, kind] : methods) {
    const std::string raw = std::string(name) + "-raw";
    ASSERT_EQ(run(method(name, rows, raw)), 0) << err();
    for (const bool compress : {false, true}) {
      const std::string shards = name + std::string(compress ? "-packed" : "-plain"), output = shards + "-run";
      make_shards(
          rows, shards,
          compress ? std::vector<std::string>{"--kind", kind, "--compress"} : std::vector<std::string>{"--kind", kind});
      EXPECT_GT(std::distance(fs::directory_iterator(folder_ / shards), {}), 2) << "several shards";
      ASSERT_EQ(run(method(name, shards, output)), 0) << err();
      expect_same_result(raw, output);
      ASSERT_EQ(run({"bin/lathe-data", "verify", path(shards)}), 0) << err();
    }
  }
}

TEST_F(LatheTrainDatasets, ShardsOfAnotherKindOfRowsAreRefused) {
  make_shards("pairs.jsonl", "pairs", {"--kind", "preference"});
  EXPECT_EQ(run(method("sft", "pairs", "run")), 2);
  EXPECT_NE(err().find("holds shards of preference rows, and lathe-train sft learns from sft rows"), std::string::npos)
      << err();
  EXPECT_EQ(run(method("grpo", "pairs", "run")), 2);
  EXPECT_NE(err().find("lathe-data tokenize --kind prompt"), std::string::npos) << err();
  EXPECT_EQ(run(method("dpo", "pairs", "run", {"--max_length", "3"})), 2);
  EXPECT_NE(err().find("max_length: is 3 here"), std::string::npos) << err();
  make_shards("prompts.jsonl", "prompts", {"--kind", "prompt"});
  EXPECT_EQ(run(method("grpo", "prompts", "run", {"--reward_column", "solution"})), 2);
  EXPECT_NE(err().find("has a column \"solution\""), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(LatheTrainDatasets, ShardsOfAnotherTokenizerAreRefusedWithBothNames) {
  fs::copy(folder_ / "model", folder_ / "other", fs::copy_options::recursive);
  json tokenizer = json::parse(bytes_of(folder_ / "model/tokenizer.json"));
  std::swap(tokenizer["model"]["vocab"]["A"], tokenizer["model"]["vocab"]["B"]);
  std::ofstream(folder_ / "other/tokenizer.json") << tokenizer;
  ASSERT_EQ(
      run({"bin/lathe-data", "tokenize", path("rows.jsonl"), "--model", path("other"), "--output", path("shards")}), 0)
      << err();
  EXPECT_EQ(run(method("sft", "shards", "run")), 2);
  EXPECT_NE(err().find("was made with the tokenizer of other,"), std::string::npos) << err();
  EXPECT_NE(err().find("that of " + path("model") + " is another"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

// 2300 rows are three windows of 1000: packed from the raw file, when the shards were made, or while training, a run is
// the same, and goes on where it was stopped.
TEST_F(LatheTrainDatasets, ShardsThatAreNotPackedArePackedWhileTraining) {
  std::ofstream rows(folder_ / "many.jsonl");
  for (int i = 0; i < 2300; ++i) {
    std::vector<int> ids(static_cast<size_t>(2 + i * i % 11), i % 320);
    ids[0] = i / 10;
    rows << json{{"input_ids", ids}}.dump() << "\n";
  }
  rows.close();
  const std::vector<std::string> length = {"--max_length", "32"},
                                 packing = joined(length, {"--packing", "--lora_dropout", "0.1"});
  make_shards("many.jsonl", "apart", joined(length, {"--shard_tokens", "3000"}));
  make_shards("many.jsonl", "packed", joined(length, {"--packing", "--shard_tokens", "3000"}));
  make_shards("many.jsonl", "longer", {});
  ASSERT_EQ(run(method("sft", "many.jsonl", "raw", packing)), 0) << err();
  for (const std::string shards : {"apart", "packed", "longer"}) {
    ASSERT_EQ(run(method("sft", shards, shards + "-run", packing)), 0) << shards << err();
    expect_same_result("raw", shards + "-run");
  }
  fs::create_directory(folder_ / "stopped");
  fs::copy(folder_ / "apart-run/checkpoint-4", folder_ / "stopped/checkpoint-4", fs::copy_options::recursive);
  fs::copy(folder_ / "apart-run/metrics.jsonl", folder_ / "stopped/metrics.jsonl");
  ASSERT_EQ(run(method("sft", "apart", "stopped", joined(packing, {"--resume"}))), 0) << err();
  expect_same_result("raw", "stopped");
  EXPECT_EQ(run(method("sft", "packed", "run", length)), 2);
  EXPECT_NE(err().find("packing: is false here"), std::string::npos) << err();
}

TEST_F(LatheTrainDatasets, ShardsThatPackingWouldHaveCutOtherwiseAreRefused) {
  const std::vector<std::string> packing = {"--packing", "--max_length", "8"};
  make_shards("rows.jsonl", "cut", {"--max_length", "8"});
  ASSERT_EQ(run(method("sft", "rows.jsonl", "raw", packing)), 0) << err();
  ASSERT_EQ(run(method("sft", "cut", "cut-run", packing)), 0) << err();
  expect_same_result("raw", "cut-run");
  make_shards("rows.jsonl", "whole", {});
  EXPECT_EQ(run(method("sft", "whole", "run", packing)), 2);
  EXPECT_NE(err().find("max_length: is 8, and a row has"), std::string::npos) << err();
  for (const std::string strategy : {"bfd_split", "wrapped"}) {
    EXPECT_EQ(run(method("sft", "cut", "run", joined(packing, {"--packing_strategy", strategy}))), 2);
    EXPECT_NE(err().find("make shards with --packing (lathe-data tokenize)"), std::string::npos) << err();
  }
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

// 64 MiB beside what is mapped: enough for 400 rows and, in shards, for a hundred times as many, packed or not; not
// enough for those held in memory.
TEST_F(LatheTrainDatasets, AHundredTimesTheRowsTrainInTheSameMemory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own memory counts";
#endif
  std::string few, many;
  for (int i = 0; i < 400; ++i) {
    few += "{\"input_ids\":[" + std::to_string(i % 320);
    for (int j = 1; j < 250; ++j) few += "," + std::to_string((i + j) % 10);
    few += "]}\n";
  }
  for (int i = 0; i < 100; ++i) many += few;
  std::ofstream(folder_ / "few.jsonl") << few;
  std::ofstream(folder_ / "many.jsonl") << many;
  make_shards("few.jsonl", "few", {"--shard_tokens", "1000000"});
  make_shards("many.jsonl", "many", {"--shard_tokens", "1000000"});
  const auto within = [&](const std::string& dataset, const std::vector<std::string>& more) {
    const std::vector<std::string> bounded = {"/bin/bash", "-c", "ulimit -c 0 -d 65536; exec \"$@\"", "bash"};
    return run(joined(bounded, method("sft", dataset, dataset + "-run",
                                      joined(more, {"--threads", "1", "--max_steps", "3", "--max_length", "256",
                                                    "--overwrite_output_dir"}))));
  };
  for (const std::vector<std::string>& packing : {std::vector<std::string>{}, std::vector<std::string>{"--packing"}}) {
    EXPECT_EQ(within("few", packing), 0) << err();
    EXPECT_EQ(within("many", packing), 0) << err();
  }
  EXPECT_NE(within("many.jsonl", {}), 0) << "the limit is one";
}

// 12 steps of 8 rows, 3 : 1, from rows and from shards alike: metrics count the rows of each source, and a run that is
// killed goes on to the same bytes.
TEST_F(LatheTrainDatasets, AMixtureDrawsByWeightAndResumes) {
  make_shards("more.jsonl", "more", {});
  const std::vector<std::string> mixture = {
      "--dataset", path("rows.jsonl") + ":0.75", "--dataset", path("more") + ":0.25", "--max_steps", "12"};
  ASSERT_EQ(run(arguments("whole", mixture)), 0) << err();
  const std::string timings = bytes_of(folder_ / "whole/timings.jsonl");
  const json timing = json::parse(timings.substr(0, timings.find('\n')));
  EXPECT_GT(timing["data_seconds"].get<double>(), 0);
  EXPECT_LT(timing["data_seconds"].get<double>(), timing["seconds"].get<double>());
  std::istringstream lines(bytes_of(folder_ / "whole/metrics.jsonl"));
  int64_t step = 0;
  for (std::string line; std::getline(lines, line);) {
    const json metrics = json::parse(line);
    ++step;
    EXPECT_EQ(metrics["rows/rows.jsonl"], 6 * step) << line;
    EXPECT_EQ(metrics["rows/more"], 2 * step) << line;
  }
  EXPECT_EQ(step, 12);
  const pid_t child = start(joined(arguments("killed", mixture), {"--threads", "1"}));
  while (!fs::exists(folder_ / "killed/checkpoint-4") && ::waitpid(child, nullptr, WNOHANG) == 0) ::sched_yield();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_EQ(run(joined(arguments("killed", mixture), {"--resume"})), 0) << err();
  expect_same_result("whole", "killed");
  std::vector<std::string> other = joined(arguments("killed", mixture), {"--resume"});
  *std::find(other.begin(), other.end(), path("more") + ":0.25") = path("more") + ":0.5";
  EXPECT_NE(run(other), 0);
  EXPECT_NE(err().find("rows"), std::string::npos) << err();
}

TEST_F(LatheTrainDatasets, MixturesStandInConfigsAndGiveWayToTheCommandLine) {
  std::ofstream(folder_ / "mix.yaml") << "dataset: [rows.jsonl:3, more.jsonl:1]\nmodel: " << path("model")
                                      << "\nmax_steps: 3\nlogging_steps: 1\n";
  const std::vector<std::string> by_file = {"bin/lathe-train", "sft", "--config", path("mix.yaml"), "--output_dir"};
  ASSERT_EQ(run(joined(by_file, {path("run")})), 0) << err();
  EXPECT_NE(bytes_of(folder_ / "run/metrics.jsonl").find("\"rows/more.jsonl\":6"), std::string::npos);
  ASSERT_EQ(run({"bin/lathe-train", "sft", "--config", path("run/config.yaml"), "--output_dir", path("again")}), 0)
      << err();
  expect_same_result("run", "again");
  ASSERT_EQ(run(joined(by_file, {path("one"), "--dataset", path("more.jsonl")})), 0) << err();
  EXPECT_EQ(bytes_of(folder_ / "one/metrics.jsonl").find("rows/"), std::string::npos);
}

TEST_F(LatheTrainDatasets, WithoutWeightsEveryRowComesOnceInAnEpoch) {
  ASSERT_EQ(run(arguments("run", {"--dataset", path("rows.jsonl"), "--dataset", path("more.jsonl"), "--max_steps", "-1",
                                  "--num_train_epochs", "2"})),
            0)
      << err();
  const std::string metrics = bytes_of(folder_ / "run/metrics.jsonl");
  const json last = json::parse(metrics.substr(metrics.rfind('{')));
  EXPECT_EQ(last["epoch"], 2);
  EXPECT_EQ(last["rows/rows.jsonl"], 48);
  EXPECT_EQ(last["rows/more.jsonl"], 20);
}

// 24 rows through a pipe are 24 rows of a file in their order; a stream that ends early leaves what was learnt, and one
// that is given again goes on where it was.
TEST_F(LatheTrainDatasets, AStreamHasTheBitsOfTheFileInOrderAndResumes) {
  for (const bool packing : {false, true}) {
    const std::string name = packing ? "packed" : "apart";
    const std::vector<std::string> more = packing ? std::vector<std::string>{"--packing", "--max_length", "32"}
                                                  : std::vector<std::string>{"--max_length", "32"};
    const auto sft = [&](const std::string& output, const std::string& dataset, const std::vector<std::string>& last) {
      return joined(joined(joined(arguments(output), more), {"--dataset", dataset, "--per_device_train_batch_size", "4",
                                                             "--max_steps", packing ? "2" : "6", "--save_steps", "1"}),
                    last);
    };
    ASSERT_EQ(run(sft(name + "-file", path("rows.jsonl"), {"--shuffle", "false"})), 0) << err();
    ASSERT_EQ(run(sft(name + "-stream", path("rows.jsonl"), {"--streaming"})), 0) << err();
    // A stream's epoch is what the run draws of it; packed, that is not all of this file.
    packing ? expect_same_adapter(name + "-file", name + "-stream")
            : expect_same_result(name + "-file", name + "-stream");
    const std::string pipe = path(name + "-pipe"), rows = path("rows.jsonl");
    const auto feed = [&](const std::string& what) { return std::system((what + " > " + pipe + " &").c_str()); };
    ASSERT_EQ(std::system(("mkfifo " + pipe).c_str()), 0);
    EXPECT_EQ(run(sft(name + "-fifo", pipe, {})), 2);
    EXPECT_NE(err().find("is a pipe"), std::string::npos) << err();
    if (!packing) {  // the stream ends within the fourth step
      ASSERT_EQ(feed("head -n 14 " + rows), 0);
      EXPECT_EQ(run(sft(name + "-fifo", pipe, {"--streaming"})), 1);
      EXPECT_NE(err().find("has ended after 14 rows"), std::string::npos) << err();
      EXPECT_NE(err().find("checkpoint-3"), std::string::npos) << err();
      ASSERT_EQ(feed("(echo '{\"input_ids\": [1, 2, 3]}'; tail -n +2 " + rows + ")"), 0);
      EXPECT_EQ(run(sft(name + "-fifo", pipe, {"--streaming", "--resume"})), 1);
      EXPECT_NE(err().find("the first 12 rows of "), std::string::npos) << err();
      ASSERT_EQ(feed("cat " + rows), 0);
      EXPECT_EQ(run(sft(name + "-fifo", pipe, {"--streaming", "--resume"})), 0) << err();
      expect_same_result(name + "-file", name + "-fifo");
    } else {
      ASSERT_EQ(feed("cat " + rows), 0);
      EXPECT_EQ(run(sft(name + "-fifo", pipe, {"--streaming"})), 0) << err();
      expect_same_adapter(name + "-file", name + "-fifo");
    }
  }
  EXPECT_EQ(run(arguments("run", {"--streaming", "--max_steps", "-1"})), 2);
  EXPECT_NE(err().find("streaming: needs max_steps"), std::string::npos) << err();
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(LatheTrainDatasets, AStreamThatIsGivenAgainGoesOnAfterTheRowsThatWereLearnt) {
  std::ofstream rows(folder_ / "long.jsonl");
  for (int i = 0; i < 300; ++i) rows << json{{"input_ids", {i, i + 1, 2, i % 7}}}.dump() << "\n";
  rows.close();
  const auto sft = [&](const std::string& output, const std::vector<std::string>& more) {
    return joined(
        joined(arguments(output), {"--dataset", path("long.jsonl"), "--streaming", "--max_steps", "15",
                                   "--per_device_train_batch_size", "9", "--save_steps", "1", "--max_length", "8"}),
        more);
  };
  ASSERT_EQ(run(sft("whole", {})), 0) << err();
  for (const int steps : {1, 8, 14}) {
    const std::string name = "stopped-" + std::to_string(steps), at = "checkpoint-" + std::to_string(steps);
    fs::create_directory(folder_ / name);
    fs::copy(folder_ / "whole" / at, folder_ / name / at, fs::copy_options::recursive);
    fs::copy(folder_ / "whole/metrics.jsonl", folder_ / name / "metrics.jsonl");
    ASSERT_EQ(run(sft(name, {"--resume"})), 0) << err();
    expect_same_result("whole", name);
  }
  fs::create_directory(folder_ / "other");
  fs::copy(folder_ / "whole/checkpoint-14", folder_ / "other/checkpoint-14", fs::copy_options::recursive);
  std::ofstream(folder_ / "long.jsonl", std::ios::app) << "";
  std::string changed = bytes_of(folder_ / "long.jsonl");
  changed[changed.find("[100,") + 1] = '2';
  std::ofstream(folder_ / "long.jsonl") << changed;
  EXPECT_EQ(run(sft("other", {"--resume"})), 1);
  EXPECT_NE(err().find("are not those that the checkpoint has learnt from"), std::string::npos) << err();
  std::ofstream(folder_ / "long.jsonl") << changed.substr(0, changed.find("{\"input_ids\":[40,"));
  EXPECT_EQ(run(sft("other", {"--resume"})), 1);
  EXPECT_NE(err().find("has ended after"), std::string::npos) << err();
}

TEST_F(LatheTrainDatasets, AWrongMixtureIsNamedBeforeAnythingIsWritten) {
  const std::string rows = path("rows.jsonl"), more = path("more.jsonl");
  for (const auto& [second, part] : std::initializer_list<std::pair<std::string, std::string>>{
           {more + ":0", "must be a number from 0.000001 to 1000000"},
           {more + ":-1", "must be a number"},
           {more + ":nan", "must be a number"},
           {more + ":1e400", "must be a number"},
           {more, "give each source a weight or none: " + more + " has none"},
           {rows + ":2", "is named twice"},
           {path("none.jsonl") + ":1", "none.jsonl is no file"}}) {
    EXPECT_EQ(run(arguments("run", {"--dataset", rows + ":1", "--dataset", second})), 2) << second;
    EXPECT_NE(err().find(part), std::string::npos) << err();
  }
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace lathe
