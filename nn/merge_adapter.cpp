#include "nn/merge_adapter.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "nn/model_directory.h"
#include "nn/weights/safetensors.h"

namespace lathe::nn {
namespace {

constexpr int64_t largest_shard_bytes = 5'000'000'000;  // transformers' max_shard_size

// The module whose weight this is, where the adapter changes it.
const LoraWeights* lora_of(const PeftAdapter& adapter, const std::string& weight) {
  constexpr std::string_view end = ".weight";
  if (!weight.ends_with(end)) return nullptr;
  const auto found = adapter.modules.find(weight.substr(0, weight.size() - end.size()));
  return found == adapter.modules.end() ? nullptr : &found->second;
}

std::optional<DType> dtype_named(const std::string& name) {
  if (name == "float32" || name == "F32" || name == "F64") return DType::f32;
  if (name == "bfloat16" || name == "BF16") return DType::bf16;
  if (name == "float16" || name == "F16") return DType::f16;
  return std::nullopt;
}

// What codes stand for.
DType dtype_of_config(const std::filesystem::path& model) {
  const nlohmann::ordered_json config = read_json_file(model / "config.json");
  for (const char* key : {"dtype", "torch_dtype"})
    if (const auto found = config.find(key); found != config.end() && found->is_string())
      if (const auto dtype = dtype_named(found->get<std::string>())) return *dtype;
  return DType::f32;
}

// The whole weight in f32, on the cpu.
Tensor read_weight(const WeightSource& source, const WeightInfo& info) {
  Tensor weight = Tensor::empty(info.shape, DType::f32, {}, MemoryTag::workspace);
  const int64_t rows = info.shape.rank() > 1 ? info.shape[0] : 1;
  source.read_rows(info.name, 0, rows, weight.data<float>());
  return weight;
}

void add_lora(const Tensor& weight, const LoraWeights& lora, double scaling) {
  Tensor product = Tensor::empty(weight.shape(), DType::f32, {}, MemoryTag::workspace);
  const Tensor a = kernels::cast(lora.a, DType::f32), b = kernels::cast(lora.b, DType::f32);
  kernels::matmul(product, b, a, kernels::Layout::plain, static_cast<float>(scaling));
  kernels::add(weight, weight, product);
}

// Every name of the adapter has its weight, of its shape.
void check_fits(const WeightSource& source, const PeftAdapter& adapter) {
  if (adapter.modules.empty()) throw FormatError("the adapter", -1, "holds no weights");
  for (const auto& [module, lora] : adapter.modules) {
    const WeightInfo* info = source.find(module + ".weight");
    if (info == nullptr)
      throw FormatError("the adapter", -1, module + " is no linear of this model; the adapter was made for another");
    const Shape expected{lora.b.dim(0), lora.a.dim(1)};
    if (info->shape != expected || lora.a.dim(0) != lora.b.dim(1))
      throw FormatError("the adapter", -1,
                        module + ": expected a product lora_B·lora_A " + to_string(info->shape) + ", found " +
                            to_string(lora.b.shape()) + " · " + to_string(lora.a.shape()) +
                            "; the adapter was made for another model");
  }
}

struct Entry {
  const WeightInfo* info;
  DType dtype;
  int64_t bytes() const { return info->shape.numel() * size_of(dtype); }
};

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
    for (const Entry& entry : shards[i]) map[entry.info->name] = shard_name(i, shards.size());
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", map}};
  write_file_atomically(directory / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

MergedModel write_merged_model(const std::filesystem::path& directory, const ModelFiles& base,
                               const PeftAdapter& adapter, std::optional<DType> dtype) {
  if (base.gguf)
    throw ConfigError("MODEL",
                      base.path.string() +
                          " is a GGUF file, whose tokenizer and configuration are not written as a Hugging Face "
                          "directory; merge into the directory that it was made from, or use the GGUF file with "
                          "--adapter as it is");
  check_fits(*base.weights, adapter);
  MergedModel result;
  std::vector<Entry> entries;
  for (const WeightInfo& info : base.weights->weights()) {
    const std::optional<DType> stored = dtype_named(info.stored_type);
    result.base_was_codes |= !stored;
    const DType as = dtype ? *dtype : stored ? *stored : dtype_of_config(base.path);
    entries.push_back({&info, as});
    ++result.weights;
    result.base_bytes += info.stored_bytes;
    result.bytes += entries.back().bytes();
  }
  const std::vector<std::vector<Entry>> shards = shards_of(entries);
  for (size_t i = 0; i < shards.size(); ++i) {
    NamedTensors tensors;
    for (const Entry& entry : shards[i]) {
      const Tensor weight = read_weight(*base.weights, *entry.info);
      if (const LoraWeights* lora = lora_of(adapter, entry.info->name)) {
        const std::string& name = entry.info->name;
        add_lora(weight, *lora, adapter.config.scaling_of(name.substr(0, name.rfind('.'))));
        ++result.merged;
      }
      tensors.emplace_back(entry.info->name, kernels::cast(weight, entry.dtype));
    }
    write_safetensors(directory / shard_name(i, shards.size()), tensors);
  }
  if (shards.size() > 1) write_index(directory, shards, result.bytes);
  write_model_config(base.path, directory, dtype, base.config.tie_word_embeddings);
  copy_text_files(base.path, directory);
  return result;
}

}  // namespace lathe::nn
