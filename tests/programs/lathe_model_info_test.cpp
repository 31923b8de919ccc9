// lathe-model info: what it tells of a model before a weight is read.
#include "nn/weights/peft.h"
#include "tests/programs/program_test.h"
#include "tests/support/source_dir.h"
#include "train/memory_estimate.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class LatheModelInfo : public ProgramTest {
 protected:
  int info(const fs::path& model, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"bin/lathe-model", "info", model.string()});
    return run(more);
  }
  void set_config(const char* key, nlohmann::json value) const {
    auto config = nlohmann::json::parse(bytes_of(folder_ / "model/config.json"));
    config[key] = std::move(value);
    std::ofstream(folder_ / "model/config.json") << config.dump();
  }
};

TEST_F(LatheModelInfo, TellsBytesMemoryAndLicence) {
  std::ofstream(folder_ / "model/README.md")
      << "---\nlanguage: en\nlicense: 'apache-2.0'\n---\n# A model\nlicense: mit\n";
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["license"], "apache-2.0");
  const int64_t parameters = result["parameters"];
  EXPECT_EQ(result["types"]["F32"]["bytes"], 4 * parameters);
  const nlohmann::json& memory = result["memory"];
  EXPECT_EQ(memory["weights"]["bf16"], 2 * parameters);
  EXPECT_LT(memory["weights"]["load_in_4bit"], memory["weights"]["load_in_8bit"]);
  // Keys and values of 2 layers, 2 heads of 16, in 2 bytes.
  EXPECT_EQ(memory["kv_cache"]["token"], 2 * 2 * 2 * 16 * 2);
  EXPECT_EQ(memory["kv_cache"]["context"], 256 * memory["kv_cache"]["token"].get<int64_t>());
  EXPECT_LT(memory["training"]["qlora"], memory["training"]["lora"]);
  EXPECT_LT(memory["training"]["lora"], memory["training"]["full"]);
  ASSERT_EQ(info(folder_ / "model"), 0) << err();
  for (const char* part : {"licence          apache-2.0", "keys and values", "LoRA (r 16)", "all weights"})
    EXPECT_NE(out().find(part), std::string::npos) << out();
}

TEST_F(LatheModelInfo, TrainingHasAnAdapterOfEveryLinear) {
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  nn::LoraConfig lora;
  lora.r = 16;
  lora.target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  train::RunShape run;
  run.dtype = DType::bf16;
  run.forward_tokens = 1024;
  run.gradient_checkpointing = true;
  const int64_t expected = train::estimate_memory(nn::read_hf_config(folder_ / "model"), &lora, run).total_bytes();
  EXPECT_EQ(nlohmann::json::parse(out())["memory"]["training"]["lora"], expected);
}

TEST_F(LatheModelInfo, TellsTheRestOfFilesWithoutATokenizer) {
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  nlohmann::json with = nlohmann::json::parse(out());
  fs::remove(folder_ / "model/tokenizer.json");
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  EXPECT_NE(err().find("there is no tokenizer.json"), std::string::npos) << err();
  for (const char* key : {"stop_token_ids", "chat_template", "chat_templates"}) with.erase(key);
  EXPECT_EQ(nlohmann::json::parse(out()), with);
  ASSERT_EQ(info(folder_ / "model"), 0) << err();
  EXPECT_NE(out().find("all weights"), std::string::npos) << out();
  const fs::path gguf = fs::path(source_dir) / "tests/golden/tiny_olmo3/model.gguf";
  ASSERT_EQ(info(gguf), 0) << err();
  EXPECT_NE(err().find("tokenizer.ggml.model"), std::string::npos) << err();
  EXPECT_NE(out().find("family           olmo3"), std::string::npos) << out();
}

TEST_F(LatheModelInfo, TellsExperts) {
  const fs::path mixture = fs::path(source_dir) / "tests/golden/tiny_qwen3_moe/some";
  ASSERT_EQ(info(mixture), 0) << err();
  EXPECT_NE(out().find("experts          6 in 2 of the layers, 2 to a token, each 12 wide"), std::string::npos)
      << out();
  ASSERT_EQ(info(mixture, {"--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["num_experts"], 6);
  EXPECT_EQ(result["num_experts_per_tok"], 2);
  EXPECT_EQ(result["moe_intermediate_size"], 12);
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  EXPECT_FALSE(nlohmann::json::parse(out()).contains("num_experts"));
}

TEST_F(LatheModelInfo, TellsASharedExpert) {
  const fs::path mixture = fs::path(source_dir) / "tests/golden/tiny_qwen2_moe/some";
  ASSERT_EQ(info(mixture), 0) << err();
  EXPECT_NE(out().find("and one for all tokens, 20 wide, by a gate of its own"), std::string::npos) << out();
  ASSERT_EQ(info(mixture, {"--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["shared_expert_intermediate_size"], 20);
  // Embedding, output and last norm; in each layer norms and attention; a block of 40, and twice experts and router and
  // the shared expert with its gate.
  const int attention = 2 * 32 * 32 + 2 * 16 * 32 + 32 + 2 * 16, chosen = 6 * 3 * 12 * 32 + 6 * 32;
  EXPECT_EQ(result["parameters"],
            2 * 96 * 32 + 32 + 3 * (2 * 32 + attention) + 3 * 40 * 32 + 2 * (chosen + 3 * 20 * 32 + 32));
}

TEST_F(LatheModelInfo, TellsShortConvolutions) {
  const fs::path mixed = fs::path(source_dir) / "tests/golden/tiny_lfm2/plain";
  ASSERT_EQ(info(mixed), 0) << err();
  EXPECT_NE(out().find("convolutions     of 3 tokens, in 3 of the layers"), std::string::npos) << out();
  ASSERT_EQ(info(mixed, {"--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["num_conv_layers"], 3);
  EXPECT_EQ(result["conv_L_cache"], 3);
  // In bf16 keys and values of 16 of one layer, and 32 of the three others.
  EXPECT_EQ(result["memory"]["kv_cache"]["token"], 2 * 2 * 16 + 3 * 2 * 32);
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  EXPECT_FALSE(nlohmann::json::parse(out()).contains("num_conv_layers"));
}

TEST_F(LatheModelInfo, TellsGatedDeltaNets) {
  const fs::path mixed = fs::path(source_dir) / "tests/golden/tiny_qwen3_5/text";
  ASSERT_EQ(info(mixed), 0) << err();
  EXPECT_NE(out().find("gated delta nets 4 heads of 16 over 2 key heads of 8, in 3 of the layers"), std::string::npos)
      << out();
  EXPECT_NE(out().find("each sequence beside"), std::string::npos) << out();
  ASSERT_EQ(info(mixed, {"--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["num_linear_attention_layers"], 3);
  EXPECT_EQ(result["linear_num_value_heads"], 4);
  EXPECT_EQ(result["memory"]["kv_cache"]["token"], 2 * 2 * 16) << "of the one layer that attends";
  // In bf16 three rows of what is convolved, and a matrix of each head in f32.
  EXPECT_EQ(result["memory"]["kv_cache"]["state"], 3 * (3 * 96 * 2 + 4 * 8 * 16 * 4));
  ASSERT_EQ(info(folder_ / "model", {"--json"}), 0) << err();
  EXPECT_FALSE(nlohmann::json::parse(out())["memory"]["kv_cache"].contains("state"));
}

TEST_F(LatheModelInfo, TellsMamba2) {
  const fs::path hybrid = fs::path(source_dir) / "tests/golden/tiny_granite4/hybrid";
  ASSERT_EQ(info(hybrid), 0) << err();
  EXPECT_NE(out().find("Mamba-2          4 heads of 16 with states of 24, in 2 of the layers"), std::string::npos)
      << out();
  ASSERT_EQ(info(hybrid, {"--json"}), 0) << err();
  const nlohmann::json result = nlohmann::json::parse(out());
  EXPECT_EQ(result["num_mamba_layers"], 2);
  EXPECT_EQ(result["mamba_d_state"], 24);
  EXPECT_EQ(result["memory"]["kv_cache"]["state"], 2 * (3 * 112 * 2 + 4 * 24 * 16 * 4));
}

TEST_F(LatheModelInfo, AnUnknownArchitectureIsNamedWithTheNearest) {
  for (const auto& [name, nearest] : {std::pair{"lama", "llama"}, {"qwen_2", "qwen2"}, {"mistrall", "mistral"}}) {
    set_config("model_type", name);
    EXPECT_EQ(info(folder_ / "model"), 2);
    EXPECT_NE(err().find(std::string("found \"") + name), std::string::npos) << err();
    EXPECT_NE(err().find(std::string("to which ") + nearest + " comes nearest"), std::string::npos) << err();
  }
  set_config("model_type", "something_else_entirely");
  EXPECT_EQ(info(folder_ / "model"), 2);
  EXPECT_EQ(err().find("nearest"), std::string::npos) << err();
}

TEST_F(LatheModelInfo, AConfigThatContradictsTheWeightsIsToldWhole) {
  set_config("num_hidden_layers", 3);
  set_config("intermediate_size", 128);
  EXPECT_EQ(info(folder_ / "model"), 0);
  EXPECT_NE(err().find("9 weights are missing: model.layers.2"), std::string::npos) << err();
  EXPECT_NE(err().find("6 weights are of another shape"), std::string::npos) << err();
  EXPECT_NE(err().find("[160, 64] instead of [128, 64]"), std::string::npos) << err();
  set_config("num_hidden_layers", 1);
  set_config("intermediate_size", 160);
  EXPECT_EQ(info(folder_ / "model"), 0);
  EXPECT_NE(err().find("9 weights are without a place"), std::string::npos) << err();
}

}  // namespace
}  // namespace lathe
