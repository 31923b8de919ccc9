// lathe-model itself: what its flags mean.
#include <tuple>

#include "tests/programs/program_test.h"
#include "tests/support/source_dir.h"

namespace lathe {
namespace {

class LatheModel : public ProgramTest {
 protected:
  nlohmann::json tokens_with_top_k(const std::string& top_k) const {
    EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--raw", "--prompt", "it is",
                   "--max_tokens", "6", "--temperature", "1", "--seed", "4", "--json", "--top_k", top_k}),
              0)
        << err();
    return nlohmann::json::parse(out(), nullptr, false)["tokens"];
  }
};

TEST_F(LatheModel, ATopKOfMinusOneKeepsEveryToken) {
  const nlohmann::json every_token = tokens_with_top_k("0");
  EXPECT_EQ(every_token.size(), 6u);
  EXPECT_EQ(tokens_with_top_k("-1"), every_token);
  EXPECT_NE(tokens_with_top_k("1"), every_token);
}

TEST_F(LatheModel, ControlTokensInARawPromptAreTextUnlessAskedFor) {
  std::ofstream(folder_ / "model/tokenizer_config.json") << R"({"eos_token": "<|endoftext|>"})";
  const auto prompt_tokens = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"bin/lathe-model", "generate", (folder_ / "model").string(), "--prompt", "<|im_end|>",
                                 "--max_tokens", "1", "--json"});
    EXPECT_EQ(run(flags), 0) << err();
    return nlohmann::json::parse(out(), nullptr, false)["prompt_tokens"].get<int>();
  };
  EXPECT_LT(prompt_tokens({"--raw", "--parse_special"}), prompt_tokens({"--raw"}));
  EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--prompt", "a", "--parse_special"}), 2);
  EXPECT_NE(err().find("--raw"), std::string::npos) << err();
}

TEST_F(LatheModel, TokenizeNeedsNothingButATokenizer) {
  std::filesystem::remove(folder_ / "model/model.safetensors");
  std::filesystem::remove(folder_ / "model/config.json");
  const std::string model = (folder_ / "model").string();
  const auto ids = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"bin/lathe-model", "tokenize", model, "--json"});
    EXPECT_EQ(run(flags), 0) << err();
    return nlohmann::json::parse(out(), nullptr, false)["ids"].get<std::vector<int>>();
  };
  const std::vector<int> text = ids({"--prompt", "it is<|im_end|>"});
  EXPECT_EQ(ids({"--prompt", "it is<|im_end|>", "--parse_special"}).back(), 2);
  EXPECT_GT(text.size(), ids({"--prompt", "it is"}).size() + 1) << "control tokens are text unless asked for";
  std::ofstream(folder_ / "text") << "it is<|im_end|>";
  EXPECT_EQ(ids({"--file", (folder_ / "text").string()}), text);
  ASSERT_EQ(run({"bin/lathe-model", "tokenize", model, "-p", "it is", "--ids"}), 0) << err();
  std::string lines;
  for (const int id : ids({"--prompt", "it is"})) lines += std::to_string(id) + "\n";
  ASSERT_EQ(run({"bin/lathe-model", "tokenize", model, "-p", "it is", "--ids"}), 0) << err();
  EXPECT_EQ(out(), lines);
  EXPECT_EQ(run({"bin/lathe-model", "tokenize", model}), 2);
  EXPECT_NE(err().find("--prompt TEXT or --file FILE"), std::string::npos) << err();
  EXPECT_EQ(run({"bin/lathe-model", "tokenize", model, "--file", (folder_ / "none").string()}), 1);
}

TEST_F(LatheModel, WithoutATemplateGenerateAndChatSayWhatIsLeft) {
  EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--prompt", "a"}), 2);
  EXPECT_NE(err().find("--raw continues plain text"), std::string::npos) << err();
  EXPECT_EQ(run({"bin/lathe-model", "chat", (folder_ / "model").string()}), 2);
  EXPECT_NE(err().find("lathe-model generate --raw"), std::string::npos) << err();
}

TEST_F(LatheModel, AQuantisedModelAnswersAsOneQuantisedWhileLoading) {
  const std::string model = (folder_ / "model").string(), out_folder = (folder_ / "nf4").string();
  ASSERT_EQ(run({"bin/lathe-model", "quantize", model, out_folder, "--bnb_4bit_use_double_quant", "--json"}), 0)
      << err();
  EXPECT_EQ(nlohmann::json::parse(out())["linears"], 14);
  const auto answer = [&](const std::string& path, std::vector<std::string> flags) {
    flags.insert(flags.begin(),
                 {"bin/lathe-model", "generate", path, "--raw", "--prompt", "it is", "--max_tokens", "6", "--json"});
    EXPECT_EQ(run(flags), 0) << err();
    return nlohmann::json::parse(out(), nullptr, false)["logprobs"];
  };
  EXPECT_EQ(answer(out_folder, {}), answer(model, {"--load_in_4bit", "--bnb_4bit_use_double_quant"}));
  EXPECT_NE(answer(out_folder, {}), answer(model, {}));
  EXPECT_EQ(run({"bin/lathe-model", "quantize", model, out_folder}), 2);
  EXPECT_NE(err().find("no empty folder"), std::string::npos) << err();
  EXPECT_EQ(run({"bin/lathe-model", "quantize", out_folder, (folder_ / "again").string()}), 2);
  EXPECT_NE(err().find("nf4 codes already"), std::string::npos) << err();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "again"));
}

TEST_F(LatheModel, GenerateSaysWhatTheWeightsAreAndWhereTheStartsTimeWent) {
  const std::string model = (folder_ / "model").string(), gguf = (folder_ / "model.gguf").string();
  ASSERT_EQ(run({"bin/lathe-model", "convert", model, gguf, "--dtype", "q8_0"}), 0) << err();
  const auto answer = [&](const std::string& path, std::vector<std::string> flags) {
    flags.insert(flags.begin(),
                 {"bin/lathe-model", "generate", path, "--raw", "--prompt", "it is", "--max_tokens", "2", "--json"});
    EXPECT_EQ(run(flags), 0) << err();
    return nlohmann::json::parse(out(), nullptr, false);
  };
  const nlohmann::json kept = answer(gguf, {});
  EXPECT_EQ(kept["weights"], "file");
  EXPECT_GE(kept["file_formats"]["Q8_0"], 14);
  double before = 0;
  for (const auto& [part, seconds] : kept["before_first_token"].items()) before += seconds.get<double>();
  EXPECT_GT(before, 0);
  EXPECT_LE(before, kept["first_token_seconds"]);
  for (const auto& [path, flags, expected] : {std::tuple(gguf, std::vector<std::string>{"--weights", "bf16"}, "bf16"),
                                              {model, {"--dtype", "f32"}, "f32"},
                                              {model, {"--load_in_8bit"}, "int8"},
                                              {gguf, {"--load_in_4bit"}, "nf4"}}) {
    const nlohmann::json widened = answer(path, flags);
    EXPECT_EQ(widened["weights"], expected);
    EXPECT_TRUE(widened["file_formats"].empty());
  }
}

TEST_F(LatheModel, APromptBeyondTheEmbeddingIsASentence) {
  EXPECT_EQ(run({"bin/lathe-model", "generate", (folder_ / "model").string(), "--raw", "--prompt", "<think>"}), 2);
  EXPECT_NE(err().find("token 600 is outside the vocabulary of 320"), std::string::npos) << err();
}

TEST_F(LatheModel, MergeWritesAModelOrNothing) {
  const std::string model = (folder_ / "model").string(), out = (folder_ / "merged").string();
  const std::string golden = std::string(source_dir) + "/tests/golden/";
  const auto merge = [&](const std::string& adapter, const std::string& into) {
    return run({"bin/lathe-model", "merge", model, "--adapter", golden + adapter, into, "--json"});
  };
  ASSERT_EQ(merge("peft_adapter/all_linear", out), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(this->out());
  EXPECT_EQ(result["merged"], 14);
  EXPECT_LE(result["check"]["difference"], result["check"]["bound"]);
  EXPECT_EQ(bytes_of(folder_ / "merged/tokenizer.json"), bytes_of(folder_ / "model/tokenizer.json"));
  EXPECT_EQ(run({"bin/lathe-model", "generate", out, "--raw", "--prompt", "it", "--max_tokens", "2"}), 0) << err();

  const std::string before = bytes_of(folder_ / "merged/model.safetensors");
  EXPECT_EQ(merge("peft_adapter/plain", out), 2);
  EXPECT_NE(err().find("exists already"), std::string::npos) << err();
  EXPECT_EQ(bytes_of(folder_ / "merged/model.safetensors"), before);
  EXPECT_EQ(merge("tiny_qwen3/adapter", out + "2"), 1);
  EXPECT_NE(err().find("another model"), std::string::npos) << err();
  for (const auto& entry : std::filesystem::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename().string().find("merged2"), std::string::npos) << entry.path();
}

TEST_F(LatheModel, ControlCharactersOfFilesDoNotReachTheTerminal) {
  auto config = nlohmann::json::parse(bytes_of(folder_ / "model/config.json"));
  config["hidden_act"] = "\x1b[2Jsilu";
  std::ofstream(folder_ / "model/config.json") << config.dump();
  EXPECT_NE(run({"bin/lathe-model", "info", (folder_ / "model").string()}), 0);
  EXPECT_EQ(err().find('\x1b'), std::string::npos) << err();
  EXPECT_NE(err().find("1b[2Jsilu"), std::string::npos) << err();
}

}  // namespace
}  // namespace lathe
