// What a step takes of a device, as its allocator counts it, beside what the run was told before: on simt, whose
// allocator is a card's.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/memory.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "nn/layer_layout.h"
#include "tests/train/tiny_run.h"
#include "train/memory_estimate.h"

namespace lathe::train {
namespace {

constexpr Device simt{DeviceKind::simt, 0};

// A mixture, if any: how many experts, how many of them to a token, how wide each, and how wide the one that all tokens
// share, if there is one.
struct Mixture {
  int64_t experts = 0, per_token = 2, inner = 256, shared = 0;
};

// Of layers without attention, but for every fourth: 4 value heads over 2 key heads.
constexpr const char* gated_delta_nets = R"("linear_num_key_heads": 2,
             "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32)";

std::string shared_mixture_fields(const Mixture& mixture) {
  return R"(, "num_experts": )" + std::to_string(mixture.experts) + R"(, "num_experts_per_tok": )" +
         std::to_string(mixture.per_token) + R"(, "moe_intermediate_size": )" + std::to_string(mixture.inner) +
         R"(, "shared_expert_intermediate_size": )" + std::to_string(mixture.shared);
}

// What layers mix their tokens with, most of them in place of attention.
enum class Mixing { attention, gated_delta, joined_gated_delta, mamba2 };

// Of layers without attention, but for every fourth: 8 heads.
std::string mamba2(int64_t layers) {
  std::string types;
  for (int64_t i = 0; i < layers; ++i)
    types += std::string(i > 0 ? ", " : "") + (i % 4 == 3 ? "\"attention\"" : "\"mamba\"");
  return R"("model_type": "granitemoehybrid", "num_local_experts": 0, "shared_intermediate_size": 256, "mamba_n_heads": 8,
            "mamba_d_state": 32, "layer_types": [)" +
         types + "]";
}

std::string family_fields(const Mixture& mixture, int64_t layers, Mixing mixing) {
  const bool joined = mixing == Mixing::joined_gated_delta, deltas = joined || mixing == Mixing::gated_delta;
  if (deltas && mixture.experts > 0)
    return std::string(joined ? R"("model_type": "qwen3_next", )" : R"("model_type": "qwen3_5_moe_text", )") +
           gated_delta_nets + shared_mixture_fields(mixture);
  if (deltas) return R"("model_type": "qwen3_5_text", )" + std::string(gated_delta_nets);
  if (mixing == Mixing::mamba2) return mamba2(layers);
  if (mixture.experts == 0) return R"("architectures": ["LlamaForCausalLM"], "model_type": "llama")";
  const std::string per_token = R"("num_experts_per_tok": )" + std::to_string(mixture.per_token);
  if (mixture.shared == 0)
    return R"("architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": )" +
           std::to_string(mixture.experts) + ", " + per_token;
  return R"("architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "qkv_bias": false)" +
         shared_mixture_fields(mixture);
}

// Powers of two: blocks of memory are not rounded up.
nn::ModelConfig small_config(int64_t vocab_size, int64_t layers, const Mixture& mixture, Mixing mixing) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "config.json")
      << R"({"vocab_size": )" << vocab_size << R"(, "num_hidden_layers": )" << layers << ", "
      << family_fields(mixture, layers, mixing) << R"(, "intermediate_size": )" << mixture.inner
      << R"(, "hidden_size": 128,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
             "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
             "hidden_act": "silu", "tie_word_embeddings": false})";
  return nn::read_hf_config(folder.path());
}

// Every weight that is asked for, all alike.
class Zeros final : public nn::WeightSource {
 public:
  explicit Zeros(const nn::ModelConfig& config) {
    add("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
    add("lm_head.weight", {config.vocab_size, config.hidden_size});
    add("model.norm.weight", {config.hidden_size});
    for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
      const nn::LayerLayout layer = nn::layer_layout(config, i);
      const std::string prefix = nn::layer_prefix(i);
      for (const nn::NormShape& norm : layer.norms()) add(prefix + norm.name + ".weight", {norm.size});
      for (const nn::NormShape& vector : layer.bare_vectors()) add(prefix + vector.name, {vector.size});
      if (layer.conv) add(prefix + layer.conv->name + ".weight", {layer.conv->columns, 1, layer.conv->taps});
      if (layer.conv && layer.conv->bias) add(prefix + layer.conv->name + ".bias", {layer.conv->columns});
      for (const nn::LinearShape& linear : layer.linears_and_experts())
        add(prefix + linear.name + ".weight", {linear.out, linear.in});
    }
  }
  const std::vector<nn::WeightInfo>& weights() const override { return weights_; }
  const nn::WeightInfo* find(std::string_view name) const override {
    for (const nn::WeightInfo& info : weights_)
      if (info.name == name) return &info;
    return nullptr;
  }
  void read_rows(std::string_view name, int64_t, int64_t count, float* out) const override {
    const Shape& shape = find(name)->shape;
    std::fill_n(out, count * shape[shape.rank() - 1], 0.0f);
  }

 private:
  void add(const std::string& name, const Shape& shape) {
    weights_.push_back({name, name, "F32", shape, 4 * shape.numel()});
  }
  std::vector<nn::WeightInfo> weights_;
};

struct Kind {
  const char* name;
  bool use_peft = false, load_in_4bit = false, checkpointing = false;
  const char* dtype;
  int64_t vocab_size = 512, layers = 8;
  bool repeated = false, use_dora = false;
  Mixture mixture = {};
  bool asks_the_host = false;  // which must be told what a kernel has found
  Mixing mixing = Mixing::attention;
};

double estimated_beside_allocated(const Kind& kind) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  config.dtype = kind.dtype;
  config.use_peft = kind.use_peft;
  config.use_dora = kind.use_dora;
  config.lora_r = 8;  // dropout is inside the adapter's products
  config.load_in_4bit = kind.load_in_4bit;
  config.gradient_checkpointing = kind.checkpointing;
  config.per_device_train_batch_size = 2;
  const nn::ModelConfig model_config = small_config(kind.vocab_size, kind.layers, kind.mixture, kind.mixing);
  const nn::LoraConfig lora = lora_config(config);
  const RunShape shape{.dtype = nn::parse_compute_dtype(config.dtype, simt),
                       .device = simt,
                       .quantization = config.quantization(),
                       .forward_tokens = 128,
                       .gradient_checkpointing = kind.checkpointing};
  const MemoryEstimate estimate = estimate_memory(model_config, kind.use_peft ? &lora : nullptr, shape);
  int64_t expected = 0;  // of what lives: the cache is the allocator's own rule
  for (const MemoryLine& line : estimate.lines)
    if (line.tag != MemoryTag::other) expected += line.bytes;

  double allocated = 0;
  Allocator& allocator = allocator_for(simt);
  allocator.release_cached();
  allocator.reset_peak();
  EXPECT_EQ(allocator.stats().total_live_bytes, 0);
  {
    nn::TransformerOptions options;
    options.dtype = shape.dtype;
    options.device = simt;
    options.weights = kind.use_peft ? nn::WeightMode::frozen : nn::WeightMode::trainable;
    options.quantized_linears = shape.quantization;
    options.max_positions = 64;
    nn::Transformer model(model_config, Zeros(model_config), options);
    if (kind.use_peft) model.add_lora(lora, 1);
    TrainingSet rows;
    for (int row = 0; row < 2; ++row) {
      std::vector<int32_t> ids(64);
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(7 * i % 512);
      rows.add_row(ids, ids);
    }
    SftObjective objective(model, rows, nullptr, config);
    Optimizer optimizer(model.trainable_parameters(), config);
    const auto step = [&](int64_t number) {
      objective.accumulate(std::vector<int64_t>{0, 1}, number, 1.0);
      optimizer.clip(1.0);
      optimizer.step(number + 1, 1e-4);
      kernels::synchronize(simt);
    };
    step(0);
    const int64_t alive = allocator.stats().total_peak_bytes;
    if (kind.repeated) {  // a graph, which holds what other parts of a step need beside what is alive at a time
      step(1);
      step(2);
      EXPECT_EQ(objective.graphs()->counts().replayed, 1);
      EXPECT_LE(allocator.stats().reserved_peak_bytes, alive + largest_cache(alive));
    }
    allocated = static_cast<double>(alive);
  }
  return static_cast<double>(expected) / allocated;
}

class DeviceMemory : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(
    Kinds, DeviceMemory,
    testing::Values(
        Kind{"lora", true, false, false, "bfloat16"}, Kind{"lora_f16_checkpointed", true, false, true, "float16"},
        Kind{"qlora", true, true, false, "bfloat16"}, Kind{"qlora_checkpointed", true, true, true, "bfloat16"},
        // Logits outweigh a layer that is computed again.
        Kind{"lora_checkpointed_vocabulary", true, false, true, "bfloat16", 2048, 2, true},
        Kind{"mixture", true, false, false, "bfloat16", 512, 8, true, false, {8}},
        Kind{"mixture_checkpointed", true, false, true, "bfloat16", 512, 8, false, false, {8}},
        Kind{"mixture_in_codes", true, true, false, "bfloat16", 512, 4, false, false, {8}},
        // Each part of a token's work, and its gradient, is several rows where experts are narrow.
        Kind{"mixture_f32", true, false, false, "float32", 512, 1, false, false, {8, 8, 64}, true},
        Kind{"mixture_f32_checkpointed", true, false, true, "float32", 512, 1, false, false, {8, 8, 64}, true},
        Kind{"mixture_narrow", true, false, false, "bfloat16", 512, 8, false, false, {16, 8, 64}},
        Kind{"mixture_narrow_checkpointed", true, false, true, "bfloat16", 512, 8, false, false, {16, 8, 64}},
        Kind{.name = "gated_deltas", .use_peft = true, .dtype = "bfloat16", .mixing = Mixing::gated_delta},
        Kind{.name = "gated_deltas_checkpointed",
             .use_peft = true,
             .checkpointing = true,
             .dtype = "bfloat16",
             .mixing = Mixing::gated_delta},
        Kind{.name = "gated_deltas_mixture",
             .use_peft = true,
             .dtype = "bfloat16",
             .mixture = {8, 2, 128, 128},
             .mixing = Mixing::gated_delta},
        Kind{.name = "gated_deltas_joined",
             .use_peft = true,
             .dtype = "bfloat16",
             .mixture = {8, 2, 128, 128},
             .mixing = Mixing::joined_gated_delta},
        Kind{.name = "mamba2", .use_peft = true, .dtype = "bfloat16", .mixing = Mixing::mamba2},
        Kind{.name = "mamba2_checkpointed",
             .use_peft = true,
             .checkpointing = true,
             .dtype = "bfloat16",
             .mixing = Mixing::mamba2},
        // A shared expert that is wider than what a token's other experts are together, and one that is not.
        Kind{"mixture_shared", true, false, false, "bfloat16", 512, 8, false, false, {8, 2, 128, 512}},
        Kind{"mixture_shared_checkpointed", true, false, true, "bfloat16", 512, 8, false, false, {8, 2, 128, 512}},
        Kind{"mixture_shared_narrow", true, false, false, "bfloat16", 512, 8, false, false, {8, 4, 256, 128}},
        Kind{"mixture_shared_full", false, false, false, "bfloat16", 512, 4, false, false, {4, 2, 128, 256}, true},
        Kind{"dora", true, false, false, "bfloat16", 512, 8, true, true},
        Kind{"qdora_checkpointed", true, true, true, "bfloat16", 512, 8, true, true},
        Kind{"full", false, false, false, "bfloat16"}, Kind{"full_f32_checkpointed", false, false, true, "float32"}),
    [](const auto& info) { return std::string(info.param.name); });

// Whatever the numbers are: kernels need not run.
TEST_P(DeviceMemory, IsEstimatedWithinATenth) {
  simt::set_runs_kernels(GetParam().asks_the_host);
  const double ratio = estimated_beside_allocated(GetParam());
  EXPECT_GE(ratio, 0.9);
  EXPECT_LE(ratio, 1.1);
  simt::set_runs_kernels(true);
}

}  // namespace
}  // namespace lathe::train
