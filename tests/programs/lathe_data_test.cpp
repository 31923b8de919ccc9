// lathe-data as a program: what its commands print and refuse.
#include "tests/programs/program_test.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class LatheData : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    std::ofstream(folder_ / "model/tokenizer_config.json") << R"({"eos_token": "<|im_end|>"})";
    fs::create_directories(folder_ / "handbook/more");
    std::ofstream(folder_ / "handbook/a.md") << "# One\n\nSome text.\n\n## Two\n\nOther text.\n";
    std::ofstream(folder_ / "handbook/more/b.txt") << "some TEXT.\n\nAnd more of it.\n";
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
};

TEST_F(LatheData, DocumentsBecomeRowsOnceEachWithTheirPlace) {
  const std::vector<std::string> command = {"bin/lathe-data", "documents", path("handbook"),      "--split",
                                            "paragraph",      "--output",  path("rows.out.jsonl")};
  ASSERT_EQ(run(joined(command, {"--json"})), 0) << err();
  const json summary = json::parse(out());
  EXPECT_EQ(summary["rows"], 5);
  EXPECT_EQ(summary["duplicates"], 1);
  std::istringstream lines(bytes_of(folder_ / "rows.out.jsonl"));
  std::vector<json> rows;
  for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows[3], (json{{"text", "Other text."}, {"source", "a.md"}, {"line", 7}, {"heading", "One > Two"}}));
  EXPECT_EQ(rows[4], (json{{"text", "And more of it."}, {"source", "more/b.txt"}, {"line", 3}}));
  EXPECT_EQ(run(command), 2);
  EXPECT_NE(err().find("exists; choose another file"), std::string::npos) << err();
  EXPECT_EQ(run(joined(command, {"--overwrite", "--split", "tokens"})), 2);
  EXPECT_NE(err().find("model: is needed by --split tokens"), std::string::npos) << err();
  ASSERT_EQ(run(joined(command, {"--overwrite", "--split", "tokens", "--max_tokens", "16", "--model", path("model")})),
            0)
      << err();
  std::ofstream(folder_ / "handbook/bad.txt") << "\xC3\x28";
  EXPECT_EQ(run(joined(command, {"--overwrite"})), 1);
  EXPECT_NE(err().find("bad.txt: is not valid UTF-8"), std::string::npos) << err();
  EXPECT_EQ(run(joined(command, {"--overwrite", "--skip_bad_files"})), 0) << err();
}

TEST_F(LatheData, ATemplateMakesInstructionRowsThatTrainingReads) {
  std::ofstream(folder_ / "row.json")
      << R"({"prompt": "{% if heading %}{{ title }}{% endif %}", "completion": "{{ text }}"})";
  const std::vector<std::string> command = {"bin/lathe-data", "documents", path("handbook"),
                                            "--split",        "paragraph", "--template",
                                            path("row.json"), "--output",  path("asked.jsonl")};
  ASSERT_EQ(run(joined(command, {"--json"})), 0) << err();
  EXPECT_EQ(json::parse(out())["rows"], 4);
  EXPECT_EQ(json::parse(out())["unfilled"], 1) << "plain text has no heading";
  const std::string rows = bytes_of(folder_ / "asked.jsonl");
  EXPECT_NE(rows.find(R"({"prompt":"Two","completion":"Other text.","source":"a.md","line":7,"heading":"One > Two"})"),
            std::string::npos)
      << rows;
  std::ofstream(folder_ / "row.json") << R"({"prompt": "A", "completion": "{{ line }}"})";  // tokens that the model has
  ASSERT_EQ(run(joined(command, {"--overwrite"})), 0) << err();
  ASSERT_EQ(run({"bin/lathe-data", "inspect", path("asked.jsonl"), "--model", path("model"), "--json"}), 0) << err();
  EXPECT_EQ(json::parse(out())["rows"], 5);
  std::ofstream(folder_ / "row.json") << R"({"prompt": "{% if heading"})";
  EXPECT_EQ(run(joined(command, {"--overwrite"})), 1);
  EXPECT_NE(err().find("row.json: prompt: "), std::string::npos) << err();
}

// 2500 rows, every tenth of them the same: what parts see and count adds up to the whole.
TEST_F(LatheData, PartsOfEveryCommandAreDisjointAndAddUp) {
  std::ofstream rows(folder_ / "many.jsonl");
  for (int i = 0; i < 2500; ++i) rows << json{{"input_ids", {i % 10 == 0 ? 0 : i / 10, i % 10, 5}}}.dump() << "\n";
  rows.close();
  ASSERT_EQ(run({"bin/lathe-data", "tokenize", path("many.jsonl"), "--model", path("model"), "--output", path("shards"),
                 "--shard_tokens", "1000"}),
            0)
      << err();
  int64_t raw = 0, duplicates = 0, verified = 0;
  for (const std::string part : {"1/3", "2/3", "3/3"}) {
    ASSERT_EQ(run({"bin/lathe-data", "inspect", path("many.jsonl"), "--model", path("model"), "--json", "--rows", "1",
                   "--shard", part}),
              0)
        << err();
    const json of_rows = json::parse(out());
    raw += of_rows["rows"].get<int64_t>();
    ASSERT_EQ(run({"bin/lathe-data", "inspect", path("shards"), "--model", path("model"), "--json", "--rows", "1",
                   "--shard", part}),
              0)
        << err();
    EXPECT_EQ(json::parse(out())["rows"][0]["sequences"][0]["input_ids"], of_rows["examples"][0]["input_ids"]) << part;
    ASSERT_EQ(run({"bin/lathe-data", "stats", path("shards"), "--duplicates", "--json", "--shard", part}), 0) << err();
    duplicates += json::parse(out())["duplicate_rows"].get<int64_t>();
    ASSERT_EQ(run({"bin/lathe-data", "verify", path("shards"), "--shard", part}), 0) << err();
    verified += std::stoll(out().substr(out().find(": ") + 2));
  }
  EXPECT_EQ(raw, 2500);
  EXPECT_EQ(duplicates, 249);
  EXPECT_EQ(verified, 8);
  std::fstream file(folder_ / "shards/shard-00001.bin", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(200).put('\x7F');
  file.close();
  EXPECT_EQ(run({"bin/lathe-data", "verify", path("shards"), "--shard", "1/3"}), 0) << err();
  EXPECT_EQ(run({"bin/lathe-data", "verify", path("shards"), "--shard", "2/3"}), 1);
  EXPECT_NE(err().find("shard-00001.bin"), std::string::npos) << err();
  EXPECT_EQ(run({"bin/lathe-data", "verify", path("shards"), "--shard", "4/3"}), 2);
}

// Three rows each of two sequences, whatever they are read from.
TEST_F(LatheData, InspectShowsRowsOfShardsAndOfEveryKind) {
  std::ofstream rows(folder_ / "both.jsonl");
  for (int i = 0; i < 3; ++i)
    rows << json{{"prompt", "Ask"}, {"chosen", "yes" + std::to_string(i)}, {"rejected", "no"}, {"answer", i}}.dump()
         << "\n";
  rows.close();
  for (const std::string kind : {"preference", "prompt"}) {
    ASSERT_EQ(run({"bin/lathe-data", "tokenize", path("both.jsonl"), "--kind", kind, "--model", path("model"),
                   "--output", path(kind), "--compress"}),
              0)
        << err();
    ASSERT_EQ(run({"bin/lathe-data", "inspect", path("both.jsonl"), "--kind", kind, "--model", path("model"), "--json",
                   "--rows", "2"}),
              0)
        << err();
    json raw = json::parse(out());
    ASSERT_EQ(run({"bin/lathe-data", "inspect", path(kind), "--model", path("model"), "--json", "--rows", "2"}), 0)
        << err();
    json shards = json::parse(out());
    ASSERT_EQ(raw["rows"].size(), 2u);
    EXPECT_EQ(raw["kind"], kind);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(raw["rows"][i]["sequences"], shards["rows"][i]["sequences"]);
      EXPECT_EQ(raw["rows"][i]["columns"], shards["rows"][i]["columns"]);
    }
    ASSERT_EQ(run({"bin/lathe-data", "inspect", path(kind), "--model", path("model")}), 0) << err();
    EXPECT_NE(out().find(kind == "prompt" ? "\"answer\":2" : "rejected"), std::string::npos) << out();
  }
  ASSERT_EQ(run({"bin/lathe-data", "tokenize", path("rows.jsonl"), "--model", path("model"), "--output", path("sft"),
                 "--packing", "--max_length", "32"}),
            0)
      << err();
  ASSERT_EQ(run({"bin/lathe-data", "inspect", path("sft"), "--model", path("model"), "--json", "--rows", "1"}), 0);
  EXPECT_GT(json::parse(out())["rows"][0]["sequences"].size(), 1u) << "a packed row";
  EXPECT_EQ(run({"bin/lathe-data", "inspect", path("none"), "--model", path("model")}), 1);
}

TEST_F(LatheData, StatsCountWhatALengthCutsAndRowsThatComeTwice) {
  std::ofstream(folder_ / "twice.jsonl") << "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [1, 2, 3, 4, 5, 6]}\n"
                                         << "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [1, 2]}\n";
  ASSERT_EQ(
      run({"bin/lathe-data", "tokenize", path("twice.jsonl"), "--model", path("model"), "--output", path("shards")}), 0)
      << err();
  ASSERT_EQ(run({"bin/lathe-data", "stats", path("shards"), "--duplicates", "--max_length", "4", "--json"}), 0)
      << err();
  const json stats = json::parse(out());
  EXPECT_EQ(stats["duplicate_rows"], 1);
  EXPECT_EQ(stats["rows_above_max_length"], 1);
  EXPECT_EQ(stats["tokens_above_max_length"], 2);
  ASSERT_EQ(run({"bin/lathe-data", "stats", path("shards"), "--duplicates", "--max_length", "4"}), 0) << err();
  EXPECT_NE(out().find("1 row comes again"), std::string::npos) << out();
  EXPECT_NE(out().find("1 row is longer than 4 tokens and would lose 2 tokens"), std::string::npos) << out();
}

TEST_F(LatheData, VerifyAndStatsReadRawRowsAndNameEachBadOne) {
  std::ofstream(folder_ / "some.jsonl") << "{\"input_ids\": [1, 2, 3]}\n"
                                        << "{\"text\": \"\xff\"}\n\n"
                                        << "{\"input_ids\": [1, 2, 3]}\n"
                                        << "{\"prompt\": \"a\"}\n"
                                        << "{\"input_ids\": [1, 2, 3, 4, 5]}\n"
                                        << "{\"input_ids\": [9]}\n"
                                        << "[1]\n";
  const std::vector<std::string> verify = {"bin/lathe-data", "verify", path("some.jsonl"), "--model", path("model")};
  EXPECT_EQ(run(verify), 1);
  for (const char* said : {"line 2: is not valid UTF-8", "line 5: ", "line 8: ", "3 rows are bad"})
    EXPECT_NE(err().find(said), std::string::npos) << said << "\n" << err();
  EXPECT_NE(out().find("7 rows read, 3 bad, 1 with nothing to learn"), std::string::npos) << out();
  EXPECT_EQ(run(joined(verify, {"--json"})), 1);
  const json verified = json::parse(out());
  EXPECT_EQ(verified["bad_rows"], 3);
  EXPECT_EQ(verified["first_bad_rows"][1]["line"], 5);
  EXPECT_EQ(run({"bin/lathe-data", "verify", path("some.jsonl")}), 2);
  EXPECT_NE(err().find("name the model"), std::string::npos) << err();
  ASSERT_EQ(run({"bin/lathe-data", "verify", path("rows.jsonl"), "--model", path("model")}), 0) << err();

  ASSERT_EQ(run({"bin/lathe-data", "stats", path("some.jsonl"), "--model", path("model"), "--duplicates", "--packing",
                 "--max_length", "8", "--json"}),
            0)
      << err();
  const json stats = json::parse(out());
  EXPECT_EQ(stats["totals"]["rows"], 4) << "one token alone teaches nothing, but may be packed";
  EXPECT_EQ(stats["totals"]["tokens"], 12);
  EXPECT_EQ(stats["duplicate_rows"], 1);
  EXPECT_EQ(stats["packed_rows"], 2);
  ASSERT_EQ(
      run({"bin/lathe-data", "stats", path("some.jsonl"), "--model", path("model"), "--packing", "--max_length", "8"}),
      0)
      << err();
  EXPECT_NE(out().find("packed: 2 rows, 75.0 % of 8 tokens a row are filled"), std::string::npos) << out();
  std::ofstream(folder_ / "lines.txt") << "one\n[two]\n";
  ASSERT_EQ(run({"bin/lathe-data", "verify", path("lines.txt"), "--model", path("model")}), 0) << err();
  EXPECT_NE(out().find("2 rows read, 0 bad"), std::string::npos) << out();
  std::ofstream(folder_ / "array.jsonl") << "[{\"input_ids\": [1, 2]}]\n";
  for (const char* command : {"verify", "stats"}) {
    EXPECT_EQ(run({"bin/lathe-data", command, path("array.jsonl"), "--model", path("model")}), 1);
    EXPECT_NE(err().find("this is a JSON array"), std::string::npos) << err();
  }
}

TEST_F(LatheData, ShardsKeepTheLicenceOfTheirSources) {
  std::ofstream(folder_ / "README.md") << "---\nlicense: mit\n---\n";
  ASSERT_EQ(run({"bin/lathe-data", "tokenize", path("rows.jsonl"), "--model", path("model"), "--output", path("free")}),
            0)
      << err();
  ASSERT_EQ(run({"bin/lathe-data", "merge", path("free"), "--output", path("merged")}), 0) << err();
  ASSERT_EQ(run({"bin/lathe-data", "stats", path("merged"), "--json"}), 0) << err();
  EXPECT_EQ(json::parse(out())["licenses"], json::array({"mit"}));
}

TEST_F(LatheData, StatsOfRawRowsAreThoseOfTheirShards) {
  ASSERT_EQ(run({"bin/lathe-data", "tokenize", path("rows.jsonl"), "--model", path("model"), "--output", path("same")}),
            0)
      << err();
  ASSERT_EQ(run({"bin/lathe-data", "stats", path("same"), "--json"}), 0) << err();
  const json of_shards = json::parse(out());
  ASSERT_EQ(run({"bin/lathe-data", "stats", path("rows.jsonl"), "--model", path("model"), "--json"}), 0) << err();
  EXPECT_EQ(json::parse(out())["totals"], of_shards["totals"]);
  // Rows of 1 to 23 tokens, some longer than what packing keeps.
  {
    std::ofstream rows(folder_ / "many.jsonl");
    for (int i = 0; i < 2500; ++i) {
      rows << "{\"input_ids\": [" << i % 7;
      for (int j = 0; j < i * 5 % 23; ++j) rows << ", " << j;
      rows << "]}\n";
    }
  }
  const std::vector<std::string> packing = {"--model", path("model"), "--packing", "--max_length", "16"};
  ASSERT_EQ(run(joined({"bin/lathe-data", "tokenize", path("many.jsonl"), "--output", path("packed")}, packing)), 0)
      << err();
  ASSERT_EQ(run({"bin/lathe-data", "stats", path("packed"), "--json"}), 0) << err();
  const json packed = json::parse(out())["totals"];
  ASSERT_EQ(run(joined({"bin/lathe-data", "stats", path("many.jsonl"), "--json"}, packing)), 0) << err();
  const json raw = json::parse(out());
  EXPECT_EQ(raw["packed_rows"], packed["rows"]);
  EXPECT_EQ(raw["packed_tokens"], packed["tokens"]);
  EXPECT_GT(raw["totals"]["tokens"], packed["tokens"]);
}

}  // namespace
}  // namespace lathe
