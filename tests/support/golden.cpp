#include "tests/support/golden.h"

#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/json_value.h"
#include "core/mapped_file.h"
#include "tests/support/source_dir.h"

namespace lathe::testing {
namespace {

DType dtype_named(const std::string& file, const std::string& name) {
  if (name == "F64") return DType::f64;
  if (name == "F32") return DType::f32;
  if (name == "I64") return DType::i64;
  if (name == "I32") return DType::i32;
  if (name == "BF16") return DType::bf16;
  if (name == "F16") return DType::f16;
  if (name == "U8") return DType::u8;
  throw FormatError(file, -1, "golden tensors are F64, F32, BF16, F16, I64, I32 or U8, found " + name);
}

}  // namespace

std::string golden_path(const std::string& name) { return std::string(source_dir) + "/tests/golden/" + name; }

GoldenTensors golden_tensors(const std::string& name) {
  const std::string path = golden_path(name);
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  uint64_t header_bytes = 0;
  if (bytes.size() < 8) throw FormatError(path, 0, "expected a safetensors header, found the end");
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > bytes.size() - 8) throw FormatError(path, 0, "the header is longer than the file");
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  const auto header = nlohmann::json::parse(text, text + header_bytes);
  const auto data = bytes.subspan(8 + header_bytes);
  GoldenTensors tensors;
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") continue;
    const auto dims = entry.at("shape").get<std::vector<int64_t>>();
    const auto begin = entry.at("data_offsets").at(0).get<uint64_t>(),
               end = entry.at("data_offsets").at(1).get<uint64_t>();
    Tensor tensor = Tensor::empty(Shape(dims), dtype_named(path, entry.at("dtype").get<std::string>()));
    if (end < begin || end > data.size() || end - begin != static_cast<uint64_t>(tensor.nbytes())) {
      throw FormatError(path, static_cast<int64_t>(8 + header_bytes + begin), key + " does not fit its shape");
    }
    if (tensor.nbytes() > 0) std::memcpy(tensor.raw(), data.data() + begin, end - begin);
    tensors.emplace(key, tensor);
  }
  return tensors;
}

}  // namespace lathe::testing
