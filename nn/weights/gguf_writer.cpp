#include "nn/weights/gguf_writer.h"

#include <cstring>

#include "core/atomic_write.h"
#include "core/error.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/gguf_value_type.h"

namespace lathe::nn {
namespace {

constexpr int64_t alignment = 32;
using namespace gguf;

class Bytes {
 public:
  template <class T>
  void number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void text(std::string_view value) {
    number<uint64_t>(value.size());
    text_ += value;
  }
  void pad() { text_.resize((text_.size() + alignment - 1) / alignment * alignment, '\0'); }
  const std::string& bytes() const { return text_; }

 private:
  std::string text_;
};

template <class T>
T narrowed(const std::string& key, int64_t value) {
  if (static_cast<int64_t>(static_cast<T>(value)) != value)
    throw ConfigError(key, std::to_string(value) + " is too large for a key of GGUF");
  return static_cast<T>(value);
}

struct ValueWriter {
  Bytes& out;
  const std::string& key;

  void operator()(int64_t value) const {
    out.number<uint32_t>(u32);
    out.number(narrowed<uint32_t>(key, value));
  }
  void operator()(double value) const {
    out.number<uint32_t>(f32);
    out.number(static_cast<float>(value));
  }
  void operator()(bool value) const {
    out.number<uint32_t>(boolean);
    out.number<uint8_t>(value);
  }
  void operator()(const std::string& value) const {
    out.number<uint32_t>(string);
    out.text(value);
  }
  void operator()(const std::vector<int64_t>& values) const {
    begin_array(i32, values.size());
    for (const int64_t value : values) out.number(narrowed<int32_t>(key, value));
  }
  void operator()(const std::vector<double>& values) const {
    begin_array(f32, values.size());
    for (const double value : values) out.number(static_cast<float>(value));
  }
  void operator()(const std::vector<bool>& values) const {
    begin_array(boolean, values.size());
    for (const bool value : values) out.number<uint8_t>(value);
  }
  void operator()(const std::vector<std::string>& values) const {
    begin_array(string, values.size());
    for (const std::string& value : values) out.text(value);
  }
  void begin_array(uint32_t type, size_t count) const {
    out.number<uint32_t>(array);
    out.number(type);
    out.number<uint64_t>(count);
  }
};

int64_t row_bytes(const GgufTensorToWrite& tensor) {
  const GgmlType& type = *ggml_type(tensor.type->id);
  const int64_t columns = tensor.weight.columns();
  if (columns % type.block_elements != 0)
    throw ConfigError(tensor.weight.name, "its rows of " + std::to_string(columns) + " are no multiple of " +
                                              std::string(type.name) + "'s blocks of " +
                                              std::to_string(type.block_elements));
  return columns / type.block_elements * type.block_bytes;
}

int64_t padded(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

std::string header_of(const GgufMetadata& metadata, const std::vector<GgufTensorToWrite>& tensors) {
  Bytes header;
  header.number<uint32_t>(0x46554747);  // "GGUF"
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(metadata.size());
  for (const auto& [key, value] : metadata) {
    header.text(key);
    std::visit(ValueWriter{header, key}, value);
  }
  int64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    const Shape& shape = tensor.weight.shape;
    header.text(tensor.weight.name);
    header.number<uint32_t>(static_cast<uint32_t>(shape.rank()));
    for (int64_t i = shape.rank() - 1; i >= 0; --i) header.number<uint64_t>(static_cast<uint64_t>(shape[i]));
    header.number<uint32_t>(tensor.type->id);
    header.number<uint64_t>(static_cast<uint64_t>(offset));
    offset += padded(row_bytes(tensor) * tensor.weight.rows());
  }
  header.pad();
  return header.bytes();
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensorToWrite>& tensors) {
  const std::string header = header_of(metadata, tensors);
  AtomicFile file(path);
  file.write(header);
  for (const GgufTensorToWrite& tensor : tensors) {
    const int64_t bytes_of_row = row_bytes(tensor), bytes = bytes_of_row * tensor.weight.rows();
    const int64_t blocks_of_row = tensor.weight.columns() / ggml_type(tensor.type->id)->block_elements;
    stream_rows(
        tensor.weight, bytes_of_row,
        [&](const float* rows, int64_t count, std::byte* out) {
          tensor.type->quantize(rows, count * blocks_of_row, out);
        },
        [&](const std::byte* piece, int64_t count) { file.write(std::span(piece, static_cast<size_t>(count))); });
    file.write(std::string(static_cast<size_t>(padded(bytes) - bytes), '\0'));
  }
  file.commit();
}

}  // namespace lathe::nn
