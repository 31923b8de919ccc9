// The weights of a Hugging Face directory: model.safetensors, or the shards of its index.
#include <set>
#include <unordered_map>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "kernels/copy/copy.h"
#include "nn/weights/misplaced_file.h"
#include "nn/weights/safetensors.h"

namespace lathe::nn {
namespace {

class SafetensorsWeights final : public WeightSource {
 public:
  void add(const std::shared_ptr<const SafetensorsFile>& file, const std::string& name) {
    const Tensor tensor = file->tensor(name);
    if (!is_floating(tensor.dtype()))
      throw FormatError(
          file->path().string(), tensor.byte_offset(),
          name + ": weights of dtype " + std::string(name_of(tensor.dtype())) + " are not supported here");
    add(name, tensor);
    files_.insert(file);
  }
  void add(const std::string& name, const Tensor& tensor) {
    tensors_.emplace(name, tensor);
    std::string type(name_of(tensor.dtype()));
    for (char& letter : type) letter = static_cast<char>(std::toupper(letter));
    index_.emplace(name, infos_.size());
    infos_.push_back({name, name, std::move(type), tensor.shape(), tensor.nbytes()});
  }

  void release_pages() const override {
    for (const auto& file : files_) file->release_pages();
  }

  const std::vector<WeightInfo>& weights() const override { return infos_; }

  const WeightInfo* find(std::string_view name) const override {
    const auto found = index_.find(std::string(name));
    return found == index_.end() ? nullptr : &infos_[found->second];
  }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = tensors_.find(std::string(name));
    if (found == tensors_.end()) throw FormatError("the model's weights", -1, std::string(name) + " is missing");
    const Tensor& tensor = found->second;
    const int64_t columns = tensor.rank() > 0 ? tensor.dim(-1) : 1;
    const int64_t rows = columns > 0 ? tensor.numel() / columns : 0;
    const Tensor view = tensor.view({rows, columns}).slice(0, first, first + count);
    const auto storage = Storage::wrap(out, count * columns * 4, {}, nullptr);
    kernels::copy(Tensor::from_storage(storage, 0, {count, columns}, DType::f32), view);
  }

 private:
  std::set<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<WeightInfo> infos_;
  std::unordered_map<std::string, size_t> index_;
  std::unordered_map<std::string, Tensor> tensors_;
};

nlohmann::ordered_json read_index(const std::filesystem::path& path) {
  nlohmann::ordered_json index = read_json_file(path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    throw FormatError(path.string(), -1, "has no \"weight_map\" object");
  return index;
}

// All that are missing in one sentence: who fetches files again wants to do it once.
void expect_shards(const std::filesystem::path& directory, const nlohmann::ordered_json& weight_map) {
  std::set<std::string> names;
  for (const auto& [weight, shard] : weight_map.items())
    if (shard.is_string() && shard.get_ref<const std::string&>().find('/') == std::string::npos)
      names.insert(shard.get<std::string>());
  std::string missing;
  size_t count = 0;
  for (const std::string& name : names)
    if (std::error_code unreadable; !std::filesystem::exists(directory / name, unreadable))
      missing += (count++ == 0 ? "" : ", ") + name;
  if (count > 0)
    throw ResourceError(directory.string() + ": of the " + std::to_string(names.size()) +
                        " files that its model.safetensors.index.json names, " + std::to_string(count) +
                        " are missing: " + missing + "; fetch them, or the whole model, again");
}

}  // namespace

SafetensorsTensors safetensors_tensors(const std::filesystem::path& directory) {
  SafetensorsTensors tensors;
  const auto single = directory / "model.safetensors", index_path = directory / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    const auto file = SafetensorsFile::open(single);
    for (const std::string& name : file->names()) tensors.emplace_back(name, file);
    return tensors;
  }
  if (!std::filesystem::exists(index_path)) {
    const std::string instead = what_it_holds_instead(directory);
    throw ResourceError(directory.string() + ": holds neither model.safetensors nor model.safetensors.index.json" +
                        (instead.empty() ? "" : "; " + instead));
  }
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> shards;
  const nlohmann::ordered_json index = read_index(index_path);
  expect_shards(directory, index["weight_map"]);
  for (const auto& [name, shard] : index["weight_map"].items()) {
    const std::string file_name = shard.is_string() ? shard.get<std::string>() : "";
    if (file_name.empty() || file_name.find('/') != std::string::npos)
      throw FormatError(index_path.string(), -1,
                        name + ": expected the name of a file beside the index, found " + json_excerpt(shard));
    auto& file = shards[file_name];
    if (!file) file = SafetensorsFile::open(directory / file_name);
    if (!file->contains(name)) throw FormatError(index_path.string(), -1, name + " is not in " + file_name);
    tensors.emplace_back(name, file);
  }
  return tensors;
}

namespace {

// Whole numbers that PyTorch keeps beside the weights of what sees, and that no text model has.
bool is_buffer(const SafetensorsFile& file, const std::string& name) {
  const bool known = name.ends_with(".position_ids") || name.ends_with(".num_batches_tracked");
  return known && file.type(name) == "I64";
}

}  // namespace

std::unique_ptr<WeightSource> open_safetensors_weights(const SafetensorsTensors& tensors) {
  auto weights = std::make_unique<SafetensorsWeights>();
  for (const auto& [name, file] : tensors)
    if (!is_buffer(*file, name)) weights->add(file, name);
  return weights;
}

std::unique_ptr<WeightSource> weights_of(const NamedTensors& tensors) {
  auto weights = std::make_unique<SafetensorsWeights>();
  for (const auto& [name, tensor] : tensors) weights->add(name, tensor);
  return weights;
}

std::unique_ptr<WeightSource> open_safetensors_weights(const std::filesystem::path& directory) {
  return open_safetensors_weights(safetensors_tensors(directory));
}

}  // namespace lathe::nn
