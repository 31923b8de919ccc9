#include "nn/merge_adapter.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "nn/adapter.h"
#include "nn/expert_adapters.h"
#include "nn/families/text_config.h"
#include "nn/model_directory.h"
#include "nn/weights/own_weights.h"
#include "nn/weights/safetensors.h"
#include "nn/weights/stacked_experts.h"

namespace lathe::nn {
namespace {

constexpr int64_t largest_shard_bytes = 5'000'000'000;  // transformers' max_shard_size

std::string module_of(const std::string& weight) {
  constexpr std::string_view end = ".weight";
  return weight.ends_with(end) ? weight.substr(0, weight.size() - end.size()) : std::string();
}

std::optional<DType> dtype_named(const std::string& name) {
  if (name == "float32" || name == "F32" || name == "F64") return DType::f32;
  if (name == "bfloat16" || name == "BF16") return DType::bf16;
  if (name == "float16" || name == "F16") return DType::f16;
  return std::nullopt;
}

// What codes stand for.
DType dtype_of_config(const std::filesystem::path& model) {
  const nlohmann::ordered_json config = text_config(read_json_file(model / "config.json"));
  for (const char* key : {"dtype", "torch_dtype"})
    if (const auto found = config.find(key); found != config.end() && found->is_string())
      if (const auto dtype = dtype_named(found->get<std::string>())) return *dtype;
  return DType::f32;
}

// W += s·B·A; of an embedding W += s·(B·A)ᵀ.
void add_product(const Tensor& weight, const LoraWeights& lora, double scaling, bool embedding) {
  Tensor product = Tensor::empty(weight.shape(), DType::f32, {}, MemoryTag::workspace);
  const Tensor a = kernels::cast(lora.a, DType::f32), b = kernels::cast(lora.b, DType::f32);
  const auto scale = static_cast<float>(scaling);
  if (embedding) {
    kernels::matmul(product, kernels::cast(a.transpose(0, 1), DType::f32), b, kernels::Layout::transposed, scale);
  } else {
    kernels::matmul(product, b, a, kernels::Layout::plain, scale);
  }
  kernels::add(weight, weight, product);
}

// A base's weights of which experts have their adapters added: W's rows + s·B's rows·A.
class AdaptedExperts final : public WeightSource {
 public:
  AdaptedExperts(const WeightSource& base, const PeftAdapter& adapter) : base_(base), adapter_(adapter) {}
  const std::vector<WeightInfo>& weights() const override { return base_.weights(); }
  const WeightInfo* find(std::string_view name) const override { return base_.find(name); }
  void release_pages() const override { base_.release_pages(); }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    base_.read_rows(name, first, count, out);
    const std::string module = module_of(std::string(name));
    const auto found = adapter_.modules.find(module);
    if (found == adapter_.modules.end() || module.find(".experts.") == std::string::npos) return;
    const Tensor &a = found->second.a, &b = found->second.b;  // f32
    const auto scale = static_cast<float>(adapter_.config.scaling_of(module));
    const int64_t r = a.dim(0), columns = a.dim(1);
    for (int64_t row = 0; row < count; ++row)
      for (int64_t i = 0; i < r; ++i) {
        const float factor = scale * b.data<float>()[(first + row) * r + i];
        for (int64_t column = 0; column < columns; ++column)
          out[row * columns + column] += factor * a.data<float>()[i * columns + column];
      }
  }

 private:
  const WeightSource& base_;
  const PeftAdapter& adapter_;  // its experts by their linears
};

// Row n times magnitude[n] ÷ its norm, which is summed in f64.
void set_norms(const Tensor& weight, const Tensor& magnitudes) {
  const Tensor magnitude = kernels::cast(magnitudes, DType::f32);
  parallel_for(weight.dim(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const std::span<float> row(weight.data<float>() + n * weight.dim(1), static_cast<size_t>(weight.dim(1)));
      double squares = 0;
      for (const float value : row) squares += static_cast<double>(value) * value;
      const double scale = squares > 0 ? magnitude.data<float>()[n] / std::sqrt(squares) : 0;
      for (float& value : row) value = static_cast<float>(scale * value);
    }
  });
}

// Every name of the adapter has its weight, of its shape.
void check_fits(const ModelFiles& base, const PeftAdapter& adapter) {
  check_adapter_targets(base.config, adapter.config);
  if (adapter.modules.empty() && adapter.saved.empty()) throw FormatError("the adapter", -1, "holds no weights");
  const Shape whole{base.config.vocab_size, base.config.hidden_size};
  const auto expect = [](const std::string& module, const Shape& expected, const Shape& found) {
    if (expected == found) return;
    throw FormatError("the adapter", -1,
                      module + ": expected " + to_string(expected) + ", found " + to_string(found) +
                          "; the adapter was made for another model");
  };
  for (const auto& [module, weight] : adapter.saved) expect(module, whole, weight.shape());
  for (const auto& [module, lora] : adapter.modules) {
    const bool embedding = module == embedding_module;
    const WeightInfo* info = base.weights->find(module + ".weight");
    if (info == nullptr && !embedding)
      throw FormatError("the adapter", -1,
                        module + " is no linear of this model; the adapter was made for another model");
    const Shape product{lora.b.dim(0), lora.a.dim(1)};
    expect(module, embedding ? Shape{whole[1], whole[0]} : info->shape, product);
    expect(module + ", the rank of lora_A", {lora.b.dim(1)}, {lora.a.dim(0)});
    if (lora.magnitude.defined()) expect(module, {product[0]}, lora.magnitude.shape());
  }
}

// A weight to be written, and the base's that it starts from.
struct Entry {
  std::string name;
  const WeightInfo* info;
  DType dtype;
  int64_t bytes() const { return info->shape.numel() * size_of(dtype); }
};

bool changed(const PeftAdapter& adapter, const std::string& module) {
  return adapter.modules.contains(module) || adapter.saved.contains(module);
}

// Stacked experts are named as the adapter's target_parameters name them.
bool changed(const PeftAdapter& adapter, const Entry& entry) {
  return changed(adapter, module_of(entry.name)) || adapter.config.targets_parameter(entry.name);
}

// A tied embedding and output projection of which an adapter changes one are two weights from then on.
bool unties(const ModelConfig& base, const PeftAdapter& adapter) {
  return base.tie_word_embeddings &&
         (changed(adapter, std::string(embedding_module)) || changed(adapter, std::string(output_module)));
}

std::vector<Entry> entries_of(const ModelFiles& base, const WeightSource& weights, const PeftAdapter& adapter,
                              std::optional<DType> dtype) {
  std::vector<Entry> entries;
  for (const WeightInfo& info : weights.weights()) {
    const std::optional<DType> stored = dtype_named(info.stored_type);
    entries.push_back({info.name, &info, dtype ? *dtype : stored ? *stored : dtype_of_config(base.path)});
  }
  if (!unties(base.config, adapter)) return entries;
  const std::string embedding = std::string(embedding_module) + ".weight",
                    head = std::string(output_module) + ".weight";
  for (const auto& [name, other] : {std::pair{embedding, head}, std::pair{head, embedding}}) {
    const auto named = [&](const std::string& wanted) {
      return std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.name == wanted; });
    };
    if (named(name) != entries.end()) continue;
    Entry twin = *named(other);
    twin.name = name;
    entries.push_back(std::move(twin));
  }
  return entries;
}

// In f32, on the cpu.
Tensor merged_weight(const Entry& entry, const WeightSource& weights, const PeftAdapter& adapter) {
  const std::string module = module_of(entry.name);
  if (const auto saved = adapter.saved.find(module); saved != adapter.saved.end())
    return kernels::cast(saved->second, DType::f32);
  const Tensor weight = read_weight(weights, *entry.info, DType::f32);
  const auto lora = adapter.modules.find(module);
  if (lora == adapter.modules.end()) return weight;
  add_product(weight, lora->second, adapter.config.scaling_of(module), module == embedding_module);
  if (lora->second.magnitude.defined()) set_norms(weight, lora->second.magnitude);
  return weight;
}

// In the base's order, each shard as full as it goes.
std::vector<std::vector<Entry>> shards_of(const std::vector<Entry>& entries) {
  std::vector<std::vector<Entry>> shards;
  int64_t bytes = 0;
  for (const Entry& entry : entries) {
    if (shards.empty() || bytes + entry.bytes() > largest_shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(entry);
    bytes += entry.bytes();
  }
  return shards;
}

std::string shard_name(size_t number, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", number + 1, count);
  return name;
}

void write_index(const std::filesystem::path& directory, const std::vector<std::vector<Entry>>& shards,
                 int64_t total_bytes) {
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i)
    for (const Entry& entry : shards[i]) map[entry.name] = shard_name(i, shards.size());
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", map}};
  write_file_atomically(directory / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

MergedModel write_merged_model(const std::filesystem::path& directory, const ModelFiles& base, const PeftAdapter& given,
                               std::optional<DType> dtype) {
  if (base.gguf)
    throw ConfigError("MODEL",
                      base.path.string() +
                          " is a GGUF file, whose tokenizer and configuration are not written as a Hugging Face "
                          "directory; merge into the directory that it was made from, or use the GGUF file with "
                          "--adapter as it is");
  check_expert_targets(base.config, given.config);
  const PeftAdapter adapter = split_expert_adapters(base.config.multimodal ? of_text_alone(given) : given, base.config);
  check_fits(base, adapter);
  MergedModel result;
  for (const WeightInfo& info : base.weights->weights()) {
    result.base_was_codes |= !dtype_named(info.stored_type);
    result.base_bytes += info.stored_bytes;
  }
  // Experts that are stacked have their adapters added before; others are merged as linears are.
  const AdaptedExperts adapted(*base.weights, adapter);
  const std::shared_ptr<const WeightSource> weights =
      base.config.experts.stacked != StackedExperts::none ? stack_experts(adapted, base.config) : base.weights;
  const std::vector<std::vector<Entry>> shards = shards_of(entries_of(base, *weights, adapter, dtype));
  for (size_t i = 0; i < shards.size(); ++i) {
    NamedTensors tensors;
    for (const Entry& entry : shards[i]) {
      tensors.emplace_back(entry.name, kernels::cast(merged_weight(entry, *weights, adapter), entry.dtype));
      ++result.weights;
      result.merged += changed(adapter, entry);
      result.bytes += entry.bytes();
    }
    write_safetensors(directory / shard_name(i, shards.size()), tensors);
  }
  if (shards.size() > 1) write_index(directory, shards, result.bytes);
  write_model_config(base.path, directory, dtype, base.config.tie_word_embeddings && !unties(base.config, adapter));
  copy_text_files(base.path, directory);
  return result;
}

}  // namespace lathe::nn
