// Where a model's weights come from: a Hugging Face directory (safetensors) or a GGUF file behind one interface.
// Names are Hugging Face's ("model.layers.0.self_attn.q_proj.weight"), rows are in Hugging Face's order whatever the
// file's, values come out in f32 whatever the file's type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/shape.h"
#include "core/tensor.h"
#include "kernels/matmul/weights/ggml/ggml_weight.h"
#include "kernels/matmul/weights/quantized_weight.h"

namespace lathe::nn {

struct WeightInfo {
  std::string name;         // Hugging Face's
  std::string stored_name;  // the file's
  std::string stored_type;  // the file's word: "F32", "BF16", "Q4_1"
  Shape shape;              // row-major: [rows, columns] for matrices, [n] for vectors
  int64_t stored_bytes = 0;
  bool has_blocks = true;  // false where a matrix of ggml's blocks cannot be had as such (WeightSource::blocks)
};

// A matrix as rows of ggml's blocks (kernels/matmul/weights/ggml/ggml_weight.h).
struct StoredBlocks {
  kernels::GgmlFormat format;
  std::vector<const std::byte*> rows;
  std::shared_ptr<const std::vector<std::byte>> made = {};  // where they lie, if not in the source's file
};

// What becomes of such a matrix. `widen`: it is dequantised to the model's dtype, once. `keep`: products read the
// file's codes, from a third of the memory, on the cpu in other bits; there a matrix of bf16 stays so beside f32, in
// the same bits.
enum class StoredBlockUse : uint8_t { widen, keep };

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // In the file's order.
  virtual const std::vector<WeightInfo>& weights() const = 0;
  // nullptr when there is none of that name.
  virtual const WeightInfo* find(std::string_view name) const = 0;
  // Rows [first, first + count) into out, row-major f32. A vector is one row. Thread-safe: rows of one weight may be
  // read by several threads at once. Throws FormatError for a name that is not there.
  virtual void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const = 0;
  // What was read is copied: its pages need not stay resident (core/mapped_file.h).
  virtual void release_pages() const {}
  // Of a weight that the file holds as codes which products read: these, on the cpu, for as long as the source lives.
  virtual std::optional<kernels::StoredWeight> codes(std::string_view /*name*/) const { return std::nullopt; }
  // Of a matrix that the file holds in blocks of ggml's which products read: its rows, in Hugging Face's order, for as
  // long as the source lives.
  virtual std::optional<StoredBlocks> blocks(std::string_view /*name*/) const { return std::nullopt; }
};

// All of a weight in `dtype`, each element rounded once, on the cpu.
Tensor read_weight(const WeightSource& source, const WeightInfo& info, DType dtype);

// xxHash-64 over the names, shapes and some rows of every weight.
uint64_t model_fingerprint(const WeightSource& weights);

}  // namespace lathe::nn
