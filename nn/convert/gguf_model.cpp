#include "nn/convert/gguf_model.h"

#include <cmath>
#include <numbers>
#include <set>

#include "core/error.h"
#include "nn/families/family.h"
#include "nn/weights/ggml_types.h"

namespace lathe::nn {
namespace {

constexpr double gemma3_local_theta = 10000.0;
constexpr int64_t gemma3_pattern = 6, smollm3_interval = 4;

// Whose every setting has a key, or a check below. Another family's GGUF would be read as something it is not.
constexpr std::string_view written_families[] = {"llama", "mistral", "qwen2", "qwen3", "gemma3_text", "smollm3"};

void expect_written(const std::string& family) {
  std::string names;
  for (const std::string_view name : written_families) {
    if (name == family) return;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw ConfigError("family", family + " cannot be written to GGUF yet; these can: " + names);
}

[[noreturn]] void refuse(const std::string& key, const std::string& reason) {
  throw ConfigError(key, reason + ": llama.cpp would compute something else");
}

// Of the layers, what the architecture's readers take for granted because the format has no key for it.
void check_layers(const ModelConfig& config, GgufModel& model) {
  const int64_t count = config.num_hidden_layers();
  for (int64_t i = 0; i < count; ++i) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    if (config.family == "gemma3_text") {
      const bool slides = (i + 1) % gemma3_pattern != 0;
      if ((layer.sliding_window > 0) != slides)
        refuse("sliding_window_pattern", "GGUF has a pattern of six layers only");
    } else if (config.family == "smollm3") {
      if ((layer.rope == no_rope) != ((i + 1) % smollm3_interval == 0))
        refuse("no_rope_layers", "GGUF has every fourth layer without rope only");
    } else if (layer.sliding_window > 0 && model.warnings.empty()) {
      model.warnings.push_back(
          "GGUF has no key for this architecture's sliding window: answers are the model's own up "
          "to " +
          std::to_string(layer.sliding_window) + " tokens");
    }
  }
  if (config.family == "gemma3_text" && (config.ropes.size() != 2 || config.ropes[1].theta != gemma3_local_theta ||
                                         config.ropes[1].scaling.kind != RopeScalingKind::none))
    refuse("rope_local_base_freq", "GGUF has 10000 without scaling only");
}

// What Llama 3.1's scaling divides each frequency by (transformers' llama3 rule).
std::vector<float> llama3_factors(const RopeConfig& rope, int64_t head_dim) {
  const RopeScaling& s = rope.scaling;
  const auto context = static_cast<double>(s.original_max_position_embeddings);
  std::vector<float> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    double factor = 1;
    if (wavelength > context / s.low_freq_factor) {
      factor = s.factor;
    } else if (wavelength >= context / s.high_freq_factor) {
      const double smooth = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      factor = 1 / ((1 - smooth) / s.factor + smooth);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

void add_rope(const ModelConfig& config, const std::string& prefix, GgufModel& model) {
  const RopeConfig& rope = config.ropes[0];
  model.metadata.emplace_back(prefix + "rope.dimension_count", config.head_dim);
  model.metadata.emplace_back(prefix + "rope.freq_base", rope.theta);
  std::vector<float> factors = rope.frequency_factors;
  if (rope.scaling.kind == RopeScalingKind::linear) {
    model.metadata.emplace_back(prefix + "rope.scaling.type", std::string("linear"));
    model.metadata.emplace_back(prefix + "rope.scaling.factor", rope.scaling.factor);
  } else if (rope.scaling.kind == RopeScalingKind::llama3) {
    factors = llama3_factors(rope, config.head_dim);
  } else if (rope.scaling.kind != RopeScalingKind::none) {
    throw ConfigError("rope_scaling", "this kind cannot be written to GGUF yet");
  }
  if (factors.empty()) return;
  const Shape shape{static_cast<int64_t>(factors.size())};
  model.tensors.push_back({{"rope_freqs.weight", shape,
                            [factors](int64_t, int64_t count, float* out) {
                              if (count > 0) std::copy(factors.begin(), factors.end(), out);
                            }},
                           ggml_writer("F32")});
}

void add_fields(const ModelConfig& config, const Family& family, const GgmlWriter& type, GgufModel& model) {
  const std::string prefix = std::string(family.gguf_architecture) + ".";
  const auto add = [&](const std::string& key, GgufValue value) { model.metadata.emplace_back(key, std::move(value)); };
  add("general.architecture", std::string(family.gguf_architecture));
  add("general.type", std::string("model"));
  add("general.file_type", int64_t{type.file_type});
  add("general.quantization_version", int64_t{2});
  add(prefix + "vocab_size", config.vocab_size);
  add(prefix + "context_length", config.max_position_embeddings);
  add(prefix + "embedding_length", config.hidden_size);
  add(prefix + "block_count", config.num_hidden_layers());
  add(prefix + "feed_forward_length", config.intermediate_size);
  add(prefix + "attention.head_count", config.num_attention_heads);
  add(prefix + "attention.head_count_kv", config.num_key_value_heads);
  add(prefix + "attention.key_length", config.head_dim);
  add(prefix + "attention.value_length", config.head_dim);
  add(prefix + "attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  if (config.family == "gemma3_text") add(prefix + "attention.sliding_window", config.layers[0].sliding_window);
  add_rope(config, prefix, model);
}

const GgmlWriter& type_of(const WeightInfo& info, const std::string& gguf_name, const GgmlWriter& asked) {
  if (info.shape.rank() < 2) return *ggml_writer("F32");
  const GgmlType& blocks = *ggml_type(asked.id);
  if (info.shape[-1] % blocks.block_elements != 0) return *ggml_writer("F16");
  const bool four_bits = asked.name.starts_with("Q4");
  return four_bits && (gguf_name == "token_embd.weight" || gguf_name == "output.weight") ? *ggml_writer("Q8_0") : asked;
}

// Row h·D + 2 i + half of the file is row h·D + half·D/2 + i of Hugging Face's.
int64_t hf_row(int64_t row, int64_t rows, int64_t heads) {
  const int64_t head_dim = rows / heads, within = row % head_dim;
  return row - within + within % 2 * (head_dim / 2) + within / 2;
}

WeightRows rows_of(const ModelFiles& files, const WeightInfo& info, const std::string& gguf_name, int64_t heads) {
  const WeightSource* source = files.weights.get();
  const std::string name = info.name;
  const int64_t head_rows = info.shape[0];
  if (heads > 0 && info.shape.rank() == 1)
    return {gguf_name, info.shape, [=](int64_t, int64_t count, float* out) {
              std::vector<float> whole(static_cast<size_t>(head_rows));
              source->read_rows(name, 0, 1, whole.data());
              for (int64_t i = 0; i < head_rows * count; ++i)
                out[i] = whole[static_cast<size_t>(hf_row(i, head_rows, heads))];
            }};
  if (heads > 0)
    return {gguf_name, info.shape, [=, columns = info.shape[-1]](int64_t first, int64_t count, float* out) {
              for (int64_t i = 0; i < count; ++i)
                source->read_rows(name, hf_row(first + i, head_rows, heads), 1, out + i * columns);
            }};
  const bool shifted = info.shape.rank() == 1 && name.ends_with("norm.weight") && files.config.norm_weight_offset != 0;
  const auto offset = static_cast<float>(shifted ? files.config.norm_weight_offset : 0);
  return {gguf_name, info.shape, [=, columns = info.shape[-1]](int64_t first, int64_t count, float* out) {
            source->read_rows(name, first, count, out);
            if (!shifted) return;
            for (int64_t i = 0; i < count * columns; ++i) out[i] += offset;
          }};
}

void add_tensors(const ModelFiles& files, const GgmlWriter& type, GgufModel& model) {
  std::set<std::string> placed;
  for (const auto& [gguf_name, place] : gguf_places(files.config)) {
    const WeightInfo* info = files.weights->find(place.name);
    placed.insert(place.name);
    const bool head = place.name == "lm_head.weight";
    if (head && files.config.tie_word_embeddings) continue;
    if (info == nullptr) throw FormatError(files.path.string(), -1, "the weight " + place.name + " is missing");
    model.tensors.push_back(
        {rows_of(files, *info, gguf_name, place.interleaved_heads), &type_of(*info, gguf_name, type)});
  }
  for (const WeightInfo& info : files.weights->weights())
    if (!placed.contains(info.name))
      throw FormatError(files.path.string(), -1,
                        info.name + " has no place in GGUF's " + files.config.family + ", which would leave it out");
}

}  // namespace

GgufModel gguf_model_of(const ModelFiles& files, const GgmlWriter& type) {
  if (files.gguf) throw ConfigError("MODEL", files.path.string() + " is a GGUF file already");
  expect_written(files.config.family);
  const Family& family = family_of(files.config);
  GgufModel model;
  check_layers(files.config, model);
  add_fields(files.config, family, type, model);
  add_tensors(files, type, model);
  return model;
}

}  // namespace lathe::nn
