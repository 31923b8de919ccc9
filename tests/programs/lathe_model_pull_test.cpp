// lathe-model pull against a Hub on this machine, and models by their names in its cache.
#ifdef LATHE_HUB
#include "core/hub/cache.h"
#include "tests/programs/program_test.h"
#include "tests/support/local_hub.h"
#include "tests/support/source_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class LatheModelPull : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    ::setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
    for (const char* variable : {"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"})
      ::unsetenv(variable);
    for (const char* file : {"config.json", "tokenizer.json", "model.safetensors"})
      hub_.files[file] = {bytes_of(folder_ / "model" / file), std::string_view(file) == "model.safetensors"};
    hub_.files["pytorch_model.bin"] = {"a pickle", true};
    hub_.files["onnx/model.onnx"] = {"another format", true};
  }
  int pull(std::vector<std::string> more) const {
    more.insert(more.begin(), {"bin/lathe-model", "pull"});
    more.insert(more.end(), {"--endpoint", hub_.server.address()});
    return run(more);
  }
  nlohmann::json tokens_of(const std::string& model) const {
    EXPECT_EQ(run({"bin/lathe-model", "generate", model, "--raw", "--prompt", "it", "--max_tokens", "3", "--json"}), 0)
        << err();
    return nlohmann::json::parse(out(), nullptr, false)["tokens"];
  }
  testing::LocalHub hub_;
};

TEST_F(LatheModelPull, AFetchedModelOpensByItsName) {
  EXPECT_EQ(run({"bin/lathe-model", "info", "org/tiny"}), 2);
  EXPECT_NE(err().find("'lathe-model pull org/tiny'"), std::string::npos) << err();

  ASSERT_EQ(pull({"org/tiny", "--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["commit"], testing::hub_commit);
  EXPECT_EQ(result["license"], "apache-2.0");
  EXPECT_EQ(result["files"], 3);
  EXPECT_FALSE(fs::exists(fs::path(result["path"]) / "pytorch_model.bin"));
  EXPECT_FALSE(fs::exists(fs::path(result["path"]) / "onnx"));
  EXPECT_EQ(tokens_of("org/tiny"), tokens_of((folder_ / "model").string()));
  EXPECT_EQ(tokens_of("org/tiny@" + testing::hub_commit), tokens_of("org/tiny"));

  EXPECT_EQ(run({"bin/lathe-model", "info", "org/tiny@v2"}), 2);
  EXPECT_NE(err().find("of it only main is in"), std::string::npos) << err();
  EXPECT_NE(err().find("pull org/tiny@v2"), std::string::npos) << err();
}

TEST_F(LatheModelPull, OfflineFindsWhatIsThereAndAsksNobody) {
  EXPECT_EQ(pull({"org/tiny", "--offline"}), 2);
  EXPECT_TRUE(hub_.server.requests().empty());
  ASSERT_EQ(pull({"org/tiny"}), 0) << err();
  const std::string path = out();
  const size_t before = hub_.server.requests().size();
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_EQ(pull({"org/tiny"}), 0) << err();
  ::unsetenv("HF_HUB_OFFLINE");
  EXPECT_EQ(out(), path);
  EXPECT_EQ(hub_.server.requests().size(), before);
}

TEST_F(LatheModelPull, OneOfSeveralGgufModelsIsChosenByAPattern) {
  hub_.files.erase("model.safetensors");
  hub_.files.erase("config.json");
  hub_.files["tiny-f16.gguf"] = {"GGUF, not really", true};
  hub_.files["tiny-f32.gguf"] = {bytes_of(std::string(source_dir) + "/tests/golden/tiny_qwen3/untied/model.gguf"),
                                 true};
  EXPECT_EQ(pull({"org/tiny"}), 2);
  EXPECT_NE(err().find("tiny-f16.gguf"), std::string::npos) << err();
  ASSERT_EQ(pull({"org/tiny", "--include", "*f32*"}), 0) << err();
  EXPECT_TRUE(out().ends_with("/tiny-f32.gguf\n")) << out();
  // The file is found by the repository's name; what it lacks is told of the file itself.
  run({"bin/lathe-model", "info", "org/tiny"});
  EXPECT_EQ(err().find("pull"), std::string::npos) << err();
}

TEST_F(LatheModelPull, PicklesAreNeverFetched) {
  EXPECT_EQ(pull({"org/tiny", "--include", "*.bin"}), 2);
  EXPECT_NE(err().find("pickle"), std::string::npos) << err();
  hub_.files.erase("model.safetensors");
  EXPECT_EQ(pull({"org/tiny"}), 2);
  EXPECT_NE(err().find("converted to safetensors"), std::string::npos) << err();
  for (const testing::ServerRequest& request : hub_.server.requests())
    EXPECT_EQ(request.target.find("pytorch_model"), std::string::npos);
}

TEST_F(LatheModelPull, AGatedModelIsSaidWithWhatToDoAndTheTokenOpensIt) {
  hub_.token = "hf_secret";
  EXPECT_EQ(pull({"org/tiny"}), 1);
  EXPECT_NE(err().find("gated"), std::string::npos) << err();
  ::setenv("HF_TOKEN", "hf_secret", 1);
  EXPECT_EQ(pull({"org/tiny"}), 0) << err();
  ::unsetenv("HF_TOKEN");
  EXPECT_EQ(err().find("hf_secret"), std::string::npos);
}

TEST_F(LatheModelPull, APullThatFailsLeavesTheRevisionThatWasThere) {
  ASSERT_EQ(pull({"org/tiny"}), 0) << err();
  const fs::path ref = folder_ / "cache/models--org--tiny/refs/main";
  const std::string other(40, 'b');
  std::ofstream(ref) << other;
  hub_.fault = [](const testing::ServerRequest& request) -> std::optional<testing::ServerAnswer> {
    if (request.method == "GET") return std::nullopt;
    return testing::ServerAnswer{404, {{"X-Error-Code", "EntryNotFound"}}, "", {}};
  };
  fs::remove_all(folder_ / "cache/models--org--tiny/snapshots");
  EXPECT_EQ(pull({"org/tiny"}), 1);
  EXPECT_EQ(bytes_of(ref), other);
}

}  // namespace
}  // namespace lathe
#endif
