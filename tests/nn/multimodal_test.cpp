// The text model of directories that see pictures, too: by which names it goes there, what its config is, what is
// written of it.
#include <gtest/gtest.h>

#include "core/json.h"
#include "core/json_value.h"
#include "kernels/copy/copy.h"
#include "nn/families/text_config.h"
#include "nn/merge_adapter.h"
#include "nn/model_directory.h"
#include "nn/weights/own_weights.h"
#include "nn/weights/safetensors.h"
#include "tests/nn/changed_configs.h"

namespace lathe::nn {
namespace {

struct Kind {
  const char *folder, *family, *hf_class;
  bool tied;
};
constexpr Kind kinds[] = {
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", true}, {"mistral3", "ministral3", "Ministral3ForCausalLM", false},
    {"qwen2_vl", "qwen2", "Qwen2ForCausalLM", true},      {"qwen2_5_vl", "qwen2", "Qwen2ForCausalLM", false},
    {"qwen3_vl", "qwen3", "Qwen3ForCausalLM", false},     {"smolvlm", "llama", "LlamaForCausalLM", false},
    {"lfm2_vl", "lfm2", "Lfm2ForCausalLM", true},         {"llava", "qwen2", "Qwen2ForCausalLM", false}};

std::string folder_of(const Kind& kind) { return std::string("multimodal/") + kind.folder; }

class Multimodal : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Golden, Multimodal, testing::ValuesIn(kinds),
                         [](const auto& info) { return std::string(info.param.folder); });

TEST_P(Multimodal, ATextHasTheLogitsOfTransformers) {
  const auto expected = SafetensorsFile::open(golden("multimodal/expected.safetensors"));
  const Tensor ids = expected->tensor("input_ids");
  const std::vector<int32_t> text(ids.data<int32_t>(), ids.data<int32_t>() + ids.numel());
  const Tensor logits = logits_of(load(golden(folder_of(GetParam())), DType::f32), {text});
  EXPECT_LE(largest_difference(logits, expected->tensor(GetParam().folder)), 1e-4);
}

TEST_P(Multimodal, TheTextModelAloneIsRead) {
  const ModelFiles files = open_model_files(golden(folder_of(GetParam())));
  EXPECT_EQ(files.config.family, GetParam().family);
  EXPECT_TRUE(files.config.multimodal);
  EXPECT_EQ(files.config.tie_word_embeddings, GetParam().tied);
  EXPECT_EQ(files.config.eos_token_ids, std::vector<int32_t>{2});
  EXPECT_TRUE(files.warnings.empty()) << files.warnings[0];
  const auto whole = SafetensorsFile::open(golden(folder_of(GetParam()) + "/model.safetensors"));
  EXPECT_LT(files.weights->weights().size(), whole->names().size()) << "what sees is left out";
  for (const WeightInfo& info : files.weights->weights())
    EXPECT_TRUE(info.name.starts_with("model.layers.") || info.name.starts_with("model.embed") ||
                info.name == "model.norm.weight" || info.name == "lm_head.weight")
        << info.name;
}

// What merge, quantize and training write beside the weights.
TEST_P(Multimodal, WhatIsWrittenIsTheTextModels) {
  const TemporaryFolder folder;
  const ModelConfig read = read_hf_config(golden(folder_of(GetParam())));
  write_model_config(golden(folder_of(GetParam())), folder.path(), DType::bf16, read.tie_word_embeddings);
  const nlohmann::ordered_json json = read_json_file(folder.path() / "config.json");
  EXPECT_EQ(json["architectures"], nlohmann::ordered_json({GetParam().hf_class}));
  EXPECT_EQ(json["model_type"], GetParam().family);
  for (const char* key : {"vision_config", "text_config"}) EXPECT_FALSE(json.contains(key)) << key;
  EXPECT_EQ(json.dump().find("mrope"), std::string::npos) << json;
  const ModelConfig written = read_hf_config(folder.path());
  EXPECT_FALSE(written.multimodal);
  EXPECT_EQ(written.parameter_count(), read.parameter_count());
  EXPECT_EQ(written.ropes[0].theta, read.ropes[0].theta);
  EXPECT_EQ(written.tie_word_embeddings, read.tie_word_embeddings);
}

nlohmann::json gemma3_json() { return golden_json("multimodal/gemma3/config.json"); }

TEST(MultimodalConfig, AnErrorSaysWhereTheKeyIs) {
  nlohmann::json json = gemma3_json();
  json["text_config"]["hidden_size"] = "wide";
  EXPECT_NE(error_of(json).find("text_config.hidden_size"), std::string::npos) << error_of(json);
  json["text_config"] = 3;
  EXPECT_NE(error_of(json).find("text_config"), std::string::npos) << error_of(json);
}

TEST(MultimodalConfig, ATextModelThatIsNotKnownIsNamed) {
  nlohmann::json json = gemma3_json();
  json["text_config"]["model_type"] = "gemma9_text";
  EXPECT_NE(error_of(json).find("gemma9_text"), std::string::npos) << error_of(json);
  EXPECT_NE(error_of(json).find("gemma3_text comes nearest"), std::string::npos) << error_of(json);
}

TEST(MultimodalConfig, EitherMaySayThatTheOutputIsTheEmbedding) {
  const auto tied = [](const nlohmann::json& whole, const nlohmann::json& text) {
    nlohmann::json json = golden_json("multimodal/qwen3_vl/config.json");
    json.erase("tie_word_embeddings");
    json["text_config"].erase("tie_word_embeddings");
    if (!whole.is_null()) json["tie_word_embeddings"] = whole;
    if (!text.is_null()) json["text_config"]["tie_word_embeddings"] = text;
    return config_of(json).tie_word_embeddings;
  };
  EXPECT_FALSE(tied(nullptr, nullptr)) << "Qwen3-VL's default";
  EXPECT_TRUE(tied(true, nullptr));
  EXPECT_TRUE(tied(nullptr, true));
  EXPECT_TRUE(tied(true, false));
  EXPECT_TRUE(tied(false, true)) << "as before transformers 5";
  EXPECT_FALSE(tied(false, nullptr));
  nlohmann::json json = gemma3_json();
  json.erase("tie_word_embeddings");
  json["text_config"].erase("tie_word_embeddings");
  EXPECT_TRUE(config_of(json).tie_word_embeddings) << "Gemma 3's default";
}

// As llava-1.5-7b-hf and llava-v1.6-mistral-7b-hf have it.
TEST(MultimodalConfig, WhatLlavasLeaveOutIsAsTransformersHasIt) {
  const nlohmann::json llama = {{"model_type", "llama"}, {"max_position_embeddings", 4096}, {"vocab_size", 32064}};
  const ModelConfig first = config_of({{"model_type", "llava"}, {"text_config", llama}});
  EXPECT_EQ(first.parameter_count(), 6738939904) << "Vicuna's 7B with 64 more tokens";
  EXPECT_EQ(first.max_position_embeddings, 4096);
  const nlohmann::json mistral = {{"model_type", "mistral"},   {"intermediate_size", 14336},
                                  {"num_key_value_heads", 8},  {"max_position_embeddings", 32768},
                                  {"sliding_window", nullptr}, {"vocab_size", 32064}};
  const ModelConfig next = config_of({{"model_type", "llava_next"}, {"text_config", mistral}});
  EXPECT_EQ(next.head_dim, 128);
  EXPECT_EQ(next.num_hidden_layers(), 32);
  EXPECT_EQ(next.layers[0].sliding_window, 0);
}

TEST(MultimodalConfig, HowWeightsAreQuantisedIsSaidInOneOfThreePlaces) {
  const auto method_in = [](const nlohmann::ordered_json& config) {
    const nlohmann::ordered_json* const found = quantization_config(config);
    return found == nullptr ? "" : found->at("quant_method").get<std::string>();
  };
  const nlohmann::ordered_json fp8 = {{"quant_method", "fp8"}};
  EXPECT_EQ(method_in({{"quantization_config", fp8}, {"text_config", {{"quantization_config", 3}}}}), "fp8");
  EXPECT_EQ(method_in({{"compression_config", fp8}}), "fp8");
  EXPECT_EQ(method_in({{"quantization_config", nullptr}, {"text_config", {{"quantization_config", fp8}}}}), "fp8");
  EXPECT_EQ(method_in({{"text_config", 3}}), "");
  EXPECT_EQ(method_in(nlohmann::ordered_json::array()), "");
}

TEST(MultimodalConfig, OneOfTextAloneIsLeftAsItIs) {
  const nlohmann::ordered_json json = read_json_file(golden("tiny_qwen3/tied/config.json"));
  EXPECT_FALSE(is_multimodal(json));
  EXPECT_EQ(text_config(json), json);
}

// llama.cpp's converter writes the text model beside a file of what sees, under an architecture of its own.
TEST(MultimodalGguf, TheTextModelIsReadUnderItsOwnArchitecture) {
  const std::pair<const char*, const char*> same[] = {
      {"tiny_qwen2/plain", "qwen2vl"}, {"tiny_qwen3/tied", "qwen3vl"}, {"tiny_qwen3_moe/all", "qwen3vlmoe"}};
  for (const auto& [model, architecture] : same) {
    const auto file = GgufFile::open(golden(std::string(model) + "/model.gguf"));
    const std::string before = file->get<std::string>("general.architecture") + ".";
    std::map<std::string, GgufValue> changed{{"general.architecture", std::string(architecture)}};
    for (const auto& [key, value] : file->metadata())
      if (key.starts_with(before)) {
        changed[std::string(architecture) + "." + key.substr(before.size())] = value;
        changed[key] = std::string();
      }
    const ModelConfig read = config_of_gguf(model, changed), expected = config_of_gguf(model, {});
    EXPECT_EQ(read.family, expected.family);
    EXPECT_EQ(read.parameter_count(), expected.parameter_count());
    EXPECT_EQ(read.ropes[0].theta, expected.ropes[0].theta);
    EXPECT_EQ(read.experts.intermediate_size, expected.experts.intermediate_size);
  }
}

TEST(MultimodalWeights, WithoutATextModelTheNamesThatWereLookedForAreSaid) {
  const TemporaryFolder folder;
  write_safetensors(folder.path() / "model.safetensors",
                    {{"visual.patch_embed.proj.weight", Tensor::zeros({2, 2}, DType::f32)}});
  const ModelConfig config = read_hf_config(golden("multimodal/qwen3_vl"));
  try {
    own_weights(open_safetensors_weights(folder.path()), config);
    FAIL() << "no error";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("model.language_model.embed_tokens.weight"), std::string::npos)
        << error.what();
  }
}

TEST(MultimodalWeights, BuffersOfWholeNumbersAreLeftAlone) {
  const TemporaryFolder folder;
  const Tensor whole = Tensor::zeros({3}, DType::i64);
  const auto write = [&](const std::string& name) {
    write_safetensors(folder.path() / "model.safetensors",
                      {{"model.language_model.embed_tokens.weight", Tensor::zeros({2, 2}, DType::f32)}, {name, whole}});
  };
  write("model.vision_tower.embeddings.position_ids");
  EXPECT_EQ(open_safetensors_weights(folder.path())->weights().size(), 1u);
  write("model.vision_tower.embeddings.weight");
  EXPECT_THROW(open_safetensors_weights(folder.path()), FormatError);
}

// As PEFT names them on the whole model, by transformers 5 and before.
TEST(MultimodalAdapter, ItsModulesAreTheTextModels) {
  const TemporaryFolder folder;
  std::filesystem::copy(golden("family_adapters/qwen3"), folder.path());
  for (const std::string prefix : {"model.language_model.", "language_model.model.", "model.text_model."}) {
    const auto stored = SafetensorsFile::open(golden("family_adapters/qwen3/adapter_model.safetensors"));
    std::vector<std::pair<std::string, Tensor>> renamed;
    for (const std::string& name : stored->names()) {
      const std::string own = "base_model.model.model.";
      ASSERT_TRUE(name.starts_with(own)) << name;
      renamed.emplace_back("base_model.model." + prefix + name.substr(own.size()), stored->tensor(name));
    }
    write_safetensors(folder.path() / "adapter_model.safetensors", renamed);
    const PeftAdapter adapter = read_peft_adapter(folder.path()),
                      expected = read_peft_adapter(golden("family_adapters/qwen3"));
    ASSERT_EQ(adapter.modules.size(), expected.modules.size());
    for (const auto& [name, module] : expected.modules) EXPECT_EQ(adapter.modules.count(name), 1u) << name;
  }
}

// PEFT adapts what sees, too, where its linears have the names that were asked for, and a regular expression is one
// for the whole model's names.
TEST(MultimodalAdapter, OfTheWholeModelTheTextModelsPartIsLoadedAndMerged) {
  const auto lora_of = [](int64_t out, int64_t in) {
    return LoraWeights{Tensor::zeros({2, in}, DType::f32), Tensor::zeros({out, 2}, DType::f32), {}};
  };
  const ModelFiles files = open_model_files(golden("multimodal/qwen3_vl"));
  Transformer model(files.config, *files.weights, {});
  LoraConfig config;
  config.r = 2;
  config.target_modules = {"q_proj"};
  const std::vector<std::string> own = {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"};
  PeftAdapter adapter{.config = config, .modules = {}, .saved = {}, .embedding_base = {}};
  for (const std::string& module : own) {
    const WeightInfo* const info = files.weights->find(module + ".weight");
    ASSERT_NE(info, nullptr) << module;
    adapter.modules["model.language_model." + module.substr(6)] = lora_of(info->shape[0], info->shape[1]);
  }
  adapter.modules["model.visual.blocks.0.attn.proj"] = lora_of(8, 8);
  const TemporaryFolder folder;
  for (const bool regex : {false, true}) {
    if (regex) {
      adapter.config.target_modules.clear();
      adapter.config.target_modules_regex = ".*language_model.*q_proj|.*visual.*proj";
    }
    write_peft_adapter(folder.path(), adapter);
    const PeftAdapter read = read_peft_adapter(folder.path());
    if (regex) {
      EXPECT_EQ(read.config.target_modules, own);
    }
    const std::string name = regex ? "by_regex" : "by_list";
    model.load_adapter(read, name);
    EXPECT_EQ(model.trainable_parameters(name).size(), 2 * own.size());
    const TemporaryFolder merged;
    EXPECT_NO_THROW(write_merged_model(merged.path(), files, read));
  }
  Transformer of_text(read_hf_config(golden("tiny_qwen3/tied")), *open_model_files(golden("tiny_qwen3/tied")).weights,
                      {});
  EXPECT_THROW(of_text.load_adapter(read_peft_adapter(folder.path()), "other"), FormatError);
}

}  // namespace
}  // namespace lathe::nn
