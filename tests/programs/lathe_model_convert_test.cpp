// lathe-model convert: GGUF and Hugging Face directories there and back.
#include <bit>
#include <cmath>

#include "nn/weights/gguf.h"
#include "nn/weights/safetensors.h"
#include "tests/programs/program_test.h"
#include "tests/support/source_dir.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class LatheModelConvert : public ProgramTest {
 protected:
  int convert(const fs::path& from, const fs::path& to, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"bin/lathe-model", "convert", from.string(), to.string()});
    return run(more);
  }
  // A golden model with a tokenizer.
  fs::path model_of(const std::string& name) const {
    const fs::path golden = fs::path(source_dir) / "tests/golden";
    const fs::path folder = folder_ / name;
    fs::create_directories(folder);
    for (const char* file : {"config.json", "model.safetensors"}) fs::copy_file(golden / name / file, folder / file);
    fs::copy_file(golden / "tokenizer/byte_level/tokenizer.json", folder / "tokenizer.json");
    return folder;
  }
  static void set(const fs::path& model, const char* key, const nlohmann::json& value) {
    auto config = nlohmann::json::parse(bytes_of(model / "config.json"));
    config[key] = value;
    std::ofstream(model / "config.json") << config.dump();
  }
  // The one golden model whose setting GGUF has no key for, with the setting that it takes for granted.
  fs::path writable(const std::string& name) const {
    fs::path model = model_of(name);
    if (name == "tiny_gemma2") set(model, "query_pre_attn_scalar", 16);
    return model;
  }
  static fs::path golden_gguf(const std::string& name) {
    return fs::path(source_dir) / "tests/golden" / name / "model.gguf";
  }
};

// Every tensor of both by its name and bytes; rope_freqs within the rounding of f32.
void expect_same_tensors(const fs::path& found_path, const fs::path& expected_path) {
  const auto found = nn::GgufFile::open(found_path), expected = nn::GgufFile::open(expected_path);
  EXPECT_EQ(found->tensors().size(), expected->tensors().size());
  for (const nn::GgufTensor& tensor : expected->tensors()) {
    const nn::GgufTensor* other = found->find_tensor(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    ASSERT_EQ(other->shape, tensor.shape) << tensor.name;
    ASSERT_EQ(other->type, tensor.type) << tensor.name;
    const auto* a = reinterpret_cast<const float*>(found->tensor_bytes(*other));
    const auto* b = reinterpret_cast<const float*>(expected->tensor_bytes(tensor));
    for (int64_t i = 0; i < tensor.shape.numel(); ++i) {
      const bool same = tensor.name == "rope_freqs.weight"
                            ? std::abs(a[i] - b[i]) <= 1e-5f * std::abs(b[i])
                            : std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i]);
      ASSERT_TRUE(same) << tensor.name << " " << i << ": " << a[i] << ", " << b[i];
    }
  }
  for (const auto& [key, value] : expected->metadata()) {
    if (!key.starts_with("general.") && !key.starts_with("tokenizer.") && found->contains(key)) {
      EXPECT_EQ(found->metadata().at(key), value) << key;
    }
  }
}

void expect_same_weights(const fs::path& found_path, const fs::path& expected_path) {
  const auto found = nn::SafetensorsFile::open(found_path), expected = nn::SafetensorsFile::open(expected_path);
  ASSERT_EQ(found->names().size(), expected->names().size());
  for (const std::string& name : expected->names()) {
    const Tensor a = found->tensor(name), b = expected->tensor(name);
    ASSERT_EQ(a.shape(), b.shape()) << name;
    ASSERT_EQ(a.dtype(), b.dtype()) << name;
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<size_t>(b.nbytes())), 0) << name;
  }
}

// What config.json says of the model, as far as the family it came from says it.
void expect_same_config(const fs::path& found, const fs::path& expected) {
  const auto was = nlohmann::json::parse(bytes_of(expected / "config.json")),
             is = nlohmann::json::parse(bytes_of(found / "config.json"));
  for (const char* key : {"hidden_size",
                          "num_attention_heads",
                          "num_key_value_heads",
                          "head_dim",
                          "rms_norm_eps",
                          "vocab_size",
                          "tie_word_embeddings",
                          "max_position_embeddings",
                          "sliding_window",
                          "query_pre_attn_scalar",
                          "attn_logit_softcapping",
                          "final_logit_softcapping",
                          "embedding_multiplier",
                          "attention_multiplier",
                          "residual_multiplier",
                          "logits_scaling",
                          "num_experts_per_tok",
                          "moe_intermediate_size",
                          "shared_expert_intermediate_size",
                          "qkv_bias",
                          "norm_topk_prob",
                          "norm_eps",
                          "conv_L_cache",
                          "conv_bias",
                          "num_dense_layers",
                          "use_expert_bias",
                          "routed_scaling_factor",
                          "linear_conv_kernel_dim",
                          "linear_key_head_dim",
                          "linear_value_head_dim",
                          "linear_num_key_heads",
                          "linear_num_value_heads",
                          "original_max_position_embeddings"})
    if (was.contains(key) && !was[key].is_null()) {
      EXPECT_EQ(is[key], was[key]) << key;
    }
  for (const char* key : {"layer_types", "num_local_experts"})  // some families have another word for them
    if (is.contains(key)) {
      EXPECT_EQ(is[key], was[key]) << key;
    }
}

TEST_F(LatheModelConvert, GgufIsWhatThePackagesConverterWritesAndComesBackToTheBit) {
  for (const char* name : {"tiny_phi3/longrope",  "tiny_phi3/window",     "tiny_gemma2",       "tiny_olmo2",
                           "tiny_olmo3",          "tiny_granite",         "tiny_mixtral",      "tiny_qwen3_moe/all",
                           "tiny_olmoe",          "tiny_granite_moe",     "tiny_qwen3/tied",   "tiny_qwen2/plain",
                           "tiny_mistral/nemo",   "tiny_gemma3",          "tiny_smollm3",      "tiny_llama31",
                           "tiny_llama_bias",     "tiny_gpt_oss/dense",   "tiny_lfm2/plain",   "tiny_qwen2_moe/all",
                           "tiny_ministral3",     "tiny_exaone4/windows", "tiny_exaone4/full", "tiny_seed_oss",
                           "tiny_lfm2_moe/biased"}) {
    SCOPED_TRACE(name);
    const fs::path model = writable(name), gguf = model.string() + ".gguf", back = model.string() + ".back";
    ASSERT_EQ(convert(model, gguf), 0) << err();
    expect_same_tensors(gguf, golden_gguf(name));
    ASSERT_EQ(convert(gguf, back), 0) << err();
    expect_same_weights(back / "model.safetensors", model / "model.safetensors");
    expect_same_config(back, model);
  }
}

// GGUF has the norms' weights with the one added, and −exp(A_log): in f32 the last digits are others.
TEST_F(LatheModelConvert, AModelOfGatedDeltaNetsComesBackButForTheLastDigits) {
  for (const char* name : {"tiny_qwen3_5/text", "tiny_qwen3_5_moe/text", "tiny_qwen3_next/all"}) {
    SCOPED_TRACE(name);
    const fs::path model = model_of(name), gguf = model.string() + ".gguf", back = model.string() + ".back";
    ASSERT_EQ(convert(model, gguf, {"--dtype", "f32"}), 0) << err();
    ASSERT_EQ(convert(gguf, back), 0) << err();
    const auto found = nn::SafetensorsFile::open(back / "model.safetensors"),
               expected = nn::SafetensorsFile::open(model / "model.safetensors");
    ASSERT_EQ(found->names(), expected->names());
    for (const std::string& weight : expected->names()) {
      const Tensor a = found->tensor(weight), b = expected->tensor(weight);
      ASSERT_EQ(a.shape(), b.shape()) << weight;
      const bool exact = !weight.ends_with("norm.weight") && !weight.ends_with("A_log");
      for (int64_t i = 0; i < b.numel(); ++i)
        ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i], exact ? 0.0 : 1e-6) << weight << ", " << i;
    }
    expect_same_config(back, model);
    const auto was = nlohmann::json::parse(bytes_of(model / "config.json")),
               is = nlohmann::json::parse(bytes_of(back / "config.json"));
    EXPECT_EQ(is.value("rope_parameters", nlohmann::json()), was["rope_parameters"]);
    EXPECT_EQ(is.value("num_experts", 0), was.value("num_experts", 0));
  }
}

// Whose gate and up are one linear there, and two here; its config has the words of before transformers 5.
TEST_F(LatheModelConvert, HalvesOfALinearAreWrittenApartAndComeBackAsOne) {
  const fs::path model = writable("tiny_granite4/dense"), gguf = model.string() + ".gguf",
                 back = model.string() + ".back";
  ASSERT_EQ(convert(model, gguf), 0) << err();
  expect_same_tensors(gguf, golden_gguf("tiny_granite4/dense"));
  ASSERT_EQ(convert(gguf, back), 0) << err();
  expect_same_weights(back / "model.safetensors", model / "model.safetensors");
  const auto config = nlohmann::json::parse(bytes_of(back / "config.json"));
  EXPECT_EQ(config["model_type"], "granitemoehybrid");
  EXPECT_EQ(config["layer_types"], (nlohmann::json{"attention", "attention"}));
  EXPECT_EQ(config["shared_intermediate_size"], 40);
  EXPECT_EQ(config["position_embedding_type"], "rope");
}

TEST_F(LatheModelConvert, AConvertedModelAnswersTheSame) {
  const auto answer = [&](const fs::path& path) {
    EXPECT_EQ(run({"bin/lathe-model", "generate", path.string(), "--raw", "--prompt", "it is", "--max_tokens", "6",
                   "--dtype", "f32", "--json"}),
              0)
        << err();
    return nlohmann::json::parse(out(), nullptr, false)["logprobs"];
  };
  const fs::path gguf = folder_ / "tiny.gguf", back = folder_ / "back";
  ASSERT_EQ(convert(folder_ / "model", gguf), 0) << err();
  ASSERT_EQ(convert(gguf, back, {"--max_shard_size", "100KB", "--json"}), 0) << err();
  EXPECT_EQ(nlohmann::json::parse(out())["weights"], 21);
  EXPECT_FALSE(fs::exists(back / "model.safetensors"));
  EXPECT_TRUE(fs::exists(back / "model.safetensors.index.json"));
  EXPECT_EQ(answer(gguf), answer(folder_ / "model"));
  EXPECT_EQ(answer(back), answer(folder_ / "model"));
}

TEST_F(LatheModelConvert, BlocksAreWrittenWhereRowsDivideAndSayTheirType) {
  for (const auto& [dtype, matrix, embedding] : {std::tuple{"q8_0", "Q8_0", "Q8_0"},
                                                 {"q4_0", "Q4_0", "Q8_0"},
                                                 {"q4_1", "Q4_1", "Q8_0"},
                                                 {"bf16", "BF16", "BF16"}}) {
    const fs::path gguf = folder_ / (std::string(dtype) + ".gguf");
    ASSERT_EQ(convert(folder_ / "model", gguf, {"--dtype", dtype}), 0) << err();
    ASSERT_EQ(run({"bin/lathe-model", "info", gguf.string(), "--json"}), 0) << err();
    for (const auto& weight : nlohmann::json::parse(out())["weights"]) {
      const std::string name = weight["name"];
      const bool outer = name == "model.embed_tokens.weight" || name == "lm_head.weight";
      EXPECT_EQ(weight["type"], weight["shape"].size() < 2 ? "F32" : outer ? embedding : matrix) << name;
    }
    EXPECT_EQ(run({"bin/lathe-model", "generate", gguf.string(), "--raw", "--prompt", "it", "--max_tokens", "2"}), 0)
        << err();
  }
}

// From f32, the blocks are those that the directory gives; tokenizer, template and settings come along.
TEST_F(LatheModelConvert, AGgufFileIsWrittenInAnotherTypeWithAllThatItSays) {
  for (const char* name : {"tiny_phi3/longrope", "tiny_mixtral", "tiny_gemma2", "tiny_gpt_oss/dense"}) {
    SCOPED_TRACE(name);
    const fs::path model = writable(name), whole = model.string() + ".f32.gguf";
    ASSERT_EQ(convert(model, whole, {"--dtype", "f32"}), 0) << err();
    for (const char* dtype : {"q8_0", "bf16"}) {
      const fs::path direct = model.string() + dtype + ".direct.gguf", again = model.string() + dtype + ".gguf";
      ASSERT_EQ(convert(model, direct, {"--dtype", dtype}), 0) << err();
      ASSERT_EQ(convert(whole, again, {"--dtype", dtype}), 0) << err();
      const auto a = nn::GgufFile::open(again), b = nn::GgufFile::open(direct);
      auto metadata = b->metadata();
      metadata["general.name"] = a->metadata().at("general.name");
      EXPECT_EQ(a->metadata(), metadata);
      ASSERT_EQ(a->tensors().size(), b->tensors().size());
      for (const nn::GgufTensor& tensor : b->tensors()) {
        const nn::GgufTensor* other = a->find_tensor(tensor.name);
        ASSERT_TRUE(other != nullptr && other->type == tensor.type && other->nbytes == tensor.nbytes) << tensor.name;
        EXPECT_EQ(std::memcmp(a->tensor_bytes(*other), b->tensor_bytes(tensor), static_cast<size_t>(tensor.nbytes)), 0);
      }
    }
  }
}

// Experts in MXFP4 come out as those that transformers computes with.
TEST_F(LatheModelConvert, MicroscaledExpertsAreWrittenWidened) {
  const fs::path model = model_of("tiny_gpt_oss/mxfp4"), wide = folder_ / "wide";
  ASSERT_EQ(convert(model, wide, {"--dtype", "bfloat16", "--format", "hf"}), 0) << err();
  EXPECT_FALSE(nlohmann::json::parse(bytes_of(wide / "config.json")).contains("quantization_config"));
  const auto found = nn::SafetensorsFile::open(wide / "model.safetensors"),
             expected = nn::SafetensorsFile::open(fs::path(source_dir) /
                                                  "tests/golden/tiny_gpt_oss/mxfp4/widened.safetensors");
  for (const std::string& name : expected->names()) {
    const Tensor a = found->tensor(name), b = expected->tensor(name);
    ASSERT_EQ(a.shape(), b.shape()) << name;
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<size_t>(b.nbytes())), 0) << name;
  }
}

TEST_F(LatheModelConvert, ThreadsDoNotChangeTheBytes) {
  ASSERT_EQ(convert(folder_ / "model", folder_ / "one.gguf", {"--dtype", "q4_0", "--threads", "1"}), 0);
  ASSERT_EQ(convert(folder_ / "model", folder_ / "three.gguf", {"--dtype", "q4_0", "--threads", "3"}), 0);
  EXPECT_EQ(bytes_of(folder_ / "one.gguf"), bytes_of(folder_ / "three.gguf"));
}

TEST_F(LatheModelConvert, WhatCannotBeWrittenIsSaidAndLeavesNothing) {
  const fs::path model = folder_ / "model", out = folder_ / "out.gguf";
  const auto expect_refused = [&](const fs::path& from, std::vector<std::string> more, const char* part) {
    EXPECT_NE(convert(from, out, std::move(more)), 0);
    EXPECT_NE(err().find(part), std::string::npos) << err();
    for (const auto& entry : fs::directory_iterator(folder_))
      EXPECT_EQ(entry.path().filename().string().find("out"), entry.path().filename() == "out" ? 0 : std::string::npos)
          << entry.path();
  };
  expect_refused(model, {"--dtype", "q9"}, "q4_1");
  expect_refused(model, {"--format", "onnx"}, "gguf or hf");
  expect_refused(model, {"--max_shard_size", "much"}, "5GB");
  expect_refused(model_of("tiny_qwen3_moe/some"), {}, "experts in all layers");
  expect_refused(model_of("tiny_gemma2"), {}, "query_pre_attn_scalar: GGUF has 16");
  expect_refused(model_of("tiny_qwen3/options"), {}, "hidden_act");
  for (const auto& [name, key] :
       {std::pair{"tiny_qwen3/untied", "attention_bias"}, {"tiny_smollm3", "attention_bias"}}) {
    const fs::path biased = model_of(name);
    set(biased, "attention_bias", true);
    expect_refused(biased, {}, key);
  }
  expect_refused(model_of("tiny_lfm2/bias"), {}, "conv_bias");
  expect_refused(model_of("tiny_lfm2_moe/plain"), {}, "norm_topk_prob");
  const fs::path scaled = model_of("tiny_lfm2_moe/biased");
  set(scaled, "routed_scaling_factor", 2.0);
  expect_refused(scaled, {}, "routed_scaling_factor");
  const fs::path divided = model_of("tiny_olmoe");
  set(divided, "norm_topk_prob", true);
  expect_refused(divided, {}, "norm_topk_prob: GGUF has an OLMoE whose");
  const fs::path of_qwen2 = model_of("tiny_qwen2_moe/all");
  set(of_qwen2, "norm_topk_prob", true);
  expect_refused(of_qwen2, {}, "norm_topk_prob: GGUF has a Qwen2-MoE whose");
  set(of_qwen2, "norm_topk_prob", false);
  set(of_qwen2, "qkv_bias", false);
  expect_refused(of_qwen2, {}, "qkv_bias");
  const fs::path full = model_of("tiny_gpt_oss/dense");
  set(full, "layer_types", {"full_attention", "full_attention"});
  expect_refused(full, {}, "layer_types");
  const fs::path other_pattern = model_of("tiny_olmo3");
  set(other_pattern, "layer_types", {"full_attention", "sliding_attention", "full_attention", "full_attention"});
  expect_refused(other_pattern, {}, "layer_types");
  expect_refused(golden_gguf("tiny_qwen3/untied"), {"--format", "hf", "--dtype", "q8_0"}, "Hugging Face directory");
  auto config = nlohmann::json::parse(bytes_of(model / "config.json"));
  config["num_hidden_layers"] = 1;
  std::ofstream(model / "config.json") << config.dump();
  expect_refused(model, {}, "has no place in GGUF");
}

}  // namespace
}  // namespace lathe
