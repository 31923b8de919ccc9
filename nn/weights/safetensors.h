// safetensors: 8 bytes of header length, a JSON header, then the data without holes. Reading maps the file and checks
// every rule of the format; writing gives the bytes that the usual writer gives (dtype descending, then name).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "core/tensor.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

struct SafetensorsEntry;

class SafetensorsFile {
 public:
  // Throws FormatError with the byte offset or the tensor's name.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);
  const std::filesystem::path& path() const;
  const std::vector<std::string>& names() const;  // in the order of the data
  bool contains(std::string_view name) const;
  // A view of the mapped bytes (alive as long as the tensor), read-only. Throws FormatError when there is none.
  // Types that Lathe has no arithmetic for (F8…) throw FormatError naming the type.
  Tensor tensor(std::string_view name) const;
  // The file's word for a tensor's type ("F8_E4M3"). FormatError when there is none of that name.
  const std::string& type(std::string_view name) const;
  // A tensor of a type of 8 bits as its bytes, u8 of its shape.
  Tensor bytes(std::string_view name) const;
  const std::map<std::string, std::string, std::less<>>& metadata() const;
  void release_pages() const;  // core/mapped_file.h

 private:
  struct Contents;
  const SafetensorsEntry& entry(std::string_view name) const;
  std::shared_ptr<const Contents> contents_;
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// Contiguous CPU tensors; written aside, synced and renamed. ResourceError on a full disk leaves the old file whole.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string, std::less<>>& metadata = {{"format", "pt"}});

// The names of a model's tensors, each once and with its file.
using SafetensorsTensors = std::vector<std::pair<std::string, std::shared_ptr<const SafetensorsFile>>>;

// Those of model.safetensors in the order of the data, or of the shards that model.safetensors.index.json lists. Every
// name of the index must be in its shard.
SafetensorsTensors safetensors_tensors(const std::filesystem::path& directory);

// FormatError for a tensor that is not floating; PyTorch's buffers of positions and of counts are left out.
std::unique_ptr<WeightSource> open_safetensors_weights(const SafetensorsTensors& tensors);
std::unique_ptr<WeightSource> open_safetensors_weights(const std::filesystem::path& directory);
// Of floating tensors in memory, on the cpu.
std::unique_ptr<WeightSource> weights_of(const NamedTensors& tensors);

}  // namespace lathe::nn
