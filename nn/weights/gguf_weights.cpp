// The weights of a GGUF file under Hugging Face's names and in Hugging Face's row order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/gguf.h"

namespace lathe::nn {
namespace {

class GgufWeights final : public WeightSource {
 public:
  GgufWeights(std::shared_ptr<const GgufFile> file, const GgufPlaces& places) : file_(std::move(file)) {
    for (size_t number = 0; number < file_->tensors().size(); ++number) {
      const GgufTensor& tensor = file_->tensors()[number];
      const auto place = places.find(tensor.name);
      // One without a place keeps its name, so that `info` lists what nobody uses.
      if (place != places.end() && !place->second.parts.empty()) {
        add_parts(number, place->second.parts);
      } else if (place == places.end() || place->second.half != GgufPlace::Half::second) {
        add(number, place == places.end() ? GgufPlace{.name = tensor.name} : place->second);
      }
    }
    for (size_t i = 0; i < infos_.size(); ++i)
      if (!by_name_.emplace(infos_[i].name, i).second)
        throw FormatError(file_->path().string(), -1, "two tensors stand for " + infos_[i].name);
    for (size_t number = 0; number < file_->tensors().size(); ++number) {
      const auto place = places.find(file_->tensors()[number].name);
      if (place != places.end() && place->second.half == GgufPlace::Half::second)
        add_second_half(number, place->second.name);
    }
  }

  void release_pages() const override { file_->release_pages(); }

  const std::vector<WeightInfo>& weights() const override { return infos_; }

  const WeightInfo* find(std::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &infos_[found->second];
  }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) throw FormatError(file_->path().string(), -1, "has no weight " + std::string(name));
    const Rows& held = rows_[found->second];
    const GgufTensor& tensor = file_->tensors()[held.tensor];
    const bool whole = held.place.vector_as.rank() > 0;  // its elements are one row, whatever the file's are
    const int64_t columns = whole ? tensor.shape.numel() : tensor.shape[-1];
    const int64_t rows = infos_[found->second].shape.numel() / columns;
    if (first < 0 || count < 0 || first > rows - count)
      throw ShapeError(tensor.name + ": rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                       " asked of " + std::to_string(rows));
    const int64_t own =
        held.second_half ? std::clamp<int64_t>(tensor.shape[0] - first, 0, count) : count;  // of the first tensor
    read_stored_rows(held, columns, first, own, out);
    if (own < count)
      read_stored_rows({*held.second_half, {}}, columns, first + own - tensor.shape[0], count - own,
                       out + own * columns);
    if (held.place.negative_exponential)
      for (int64_t i = 0; i < columns * count; ++i) out[i] = std::log(-out[i]);
  }

  std::optional<StoredBlocks> blocks(std::string_view name) const override {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return std::nullopt;
    const Rows& held = rows_[found->second];
    const GgufTensor& tensor = file_->tensors()[held.tensor];
    const GgmlType& type = *ggml_type(tensor.type);
    const auto format = kernels::ggml_format(type.name);
    const Shape& shape = infos_[found->second].shape;
    if (!format || shape.rank() != 2 || !infos_[found->second].has_blocks) return std::nullopt;
    const RowOrder order = order_of(held);
    const int64_t rows = shape[0];
    const int64_t row_bytes = shape[1] / type.block_elements * type.block_bytes;
    StoredBlocks blocks{*format, std::vector<const std::byte*>(static_cast<size_t>(rows))};
    const std::byte* data = file_->tensor_bytes(tensor) + held.first_row * row_bytes;
    const int64_t own = held.second_half ? tensor.shape[0] : rows;
    for (int64_t i = 0; i < own; ++i) blocks.rows[static_cast<size_t>(i)] = data + order.stored(i) * row_bytes;
    for (int64_t i = own; i < rows; ++i)
      blocks.rows[static_cast<size_t>(i)] =
          file_->tensor_bytes(file_->tensors()[*held.second_half]) + (i - own) * row_bytes;
    if (held.place.column_tiling.changes()) untile(held.place.column_tiling, type, row_bytes, blocks);
    return blocks;
  }

 private:
  // Where a weight lies in the file.
  struct Rows {
    size_t tensor = 0;
    GgufPlace place;
    int64_t first_row = 0;
    std::optional<size_t> second_half = {};  // the tensor of the rows behind its own
  };

  // Where the file has a row of Hugging Face's.
  struct RowOrder {
    int64_t rows = 0, interleaved_heads = 0;
    HeadTiling tiling;
    bool changes() const { return interleaved_heads > 0 || tiling.changes(); }
    int64_t stored(int64_t row) const {
      return interleaved_heads > 0 ? stored_row(row, rows, interleaved_heads) : tiling.stored(row);
    }
  };
  RowOrder order_of(const Rows& held) const {
    const Shape& shape = file_->tensors()[held.tensor].shape;
    return {shape[0], heads_of(held), held.place.row_tiling};
  }

  void read_stored_rows(const Rows& held, int64_t columns, int64_t first, int64_t count, float* out) const {
    const GgufTensor& tensor = file_->tensors()[held.tensor];
    const GgmlType& type = *ggml_type(tensor.type);
    if (type.dequantize == nullptr)
      throw FormatError(
          file_->path_of(tensor).string(), tensor.offset,
          tensor.name + ": type " + std::string(type.name) + " cannot be read yet; take a file in another type");
    const int64_t blocks = columns / type.block_elements;
    const std::byte* data = file_->tensor_bytes(tensor);
    const RowOrder order = order_of(held);
    if (order.changes() && tensor.shape.rank() == 1) {  // its elements are the rows
      std::vector<float> stored(static_cast<size_t>(columns));
      type.dequantize(data, blocks, stored.data());
      for (int64_t i = 0; i < columns * count; ++i) out[i] = stored[static_cast<size_t>(order.stored(i))];
    } else {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t stored = held.first_row + order.stored(first + i);
        type.dequantize(data + stored * blocks * type.block_bytes, blocks, out + i * columns);
      }
    }
    if (held.place.column_tiling.changes())
      for (int64_t i = 0; i < count; ++i) untile(held.place.column_tiling, columns, out + i * columns);
  }

  // Copies of the rows with their blocks in Hugging Face's order: a head has whole ones.
  static void untile(const HeadTiling& tiling, const GgmlType& type, int64_t row_bytes, StoredBlocks& rows) {
    const int64_t count = row_bytes / type.block_bytes;
    auto made = std::make_shared<std::vector<std::byte>>(rows.rows.size() * static_cast<size_t>(row_bytes));
    std::byte* to = made->data();
    for (const std::byte*& row : rows.rows) {
      const std::byte* const from = std::exchange(row, to);
      for (int64_t block = 0; block < count; ++block, to += type.block_bytes)
        std::memcpy(to, from + tiling.stored(block * type.block_elements) / type.block_elements * type.block_bytes,
                    static_cast<size_t>(type.block_bytes));
    }
    rows.made = std::move(made);
  }

  // The values of a row in Hugging Face's order.
  static void untile(const HeadTiling& tiling, int64_t columns, float* row) {
    const std::vector<float> stored(row, row + columns);
    for (int64_t i = 0; i < columns; ++i) row[i] = stored[static_cast<size_t>(tiling.stored(i))];
  }

  void add(size_t number, const GgufPlace& place) {
    const GgufTensor& tensor = file_->tensors()[number];
    expect_heads(tensor, place.row_tiling, tensor.shape[0], "rows");
    expect_heads(tensor, place.column_tiling, tensor.shape[-1], "columns");
    const bool widened = place.without_middle && tensor.shape.rank() == 2;
    const bool is_row = place.without_first && tensor.shape.rank() == 1;
    const Shape shape = widened                      ? Shape{tensor.shape[0], 1, tensor.shape[1]}
                        : is_row                     ? Shape{1, tensor.shape[0]}
                        : place.vector_as.rank() > 0 ? Shape{tensor.shape.numel()}
                                                     : tensor.shape;
    const GgmlType& type = *ggml_type(tensor.type);
    const bool whole_blocks = !place.column_tiling.changes() || place.column_tiling.size % type.block_elements == 0;
    infos_.push_back({place.name, tensor.name, std::string(type.name), shape, tensor.nbytes, whole_blocks});
    rows_.push_back({number, place, 0});
  }

  // Behind the rows of the tensor that has the name. Blocks of two types are none together.
  void add_second_half(size_t number, const std::string& name) {
    const GgufTensor& tensor = file_->tensors()[number];
    const auto found = by_name_.find(name);
    if (found == by_name_.end() || infos_[found->second].shape != tensor.shape || tensor.shape.rank() != 2)
      throw FormatError(file_->path_of(tensor).string(), tensor.offset,
                        tensor.name + ": expected another matrix of its shape, the first half of " + name);
    WeightInfo& info = infos_[found->second];
    Rows& held = rows_[found->second];
    info.has_blocks = info.has_blocks && tensor.type == file_->tensors()[held.tensor].type;
    info.shape = Shape{2 * tensor.shape[0], tensor.shape[1]};
    info.stored_bytes += tensor.nbytes;
    held.second_half = number;
  }

  void expect_heads(const GgufTensor& tensor, const HeadTiling& tiling, int64_t found, const char* what) const {
    if (tiling.changes() && tiling.end() != found)
      throw FormatError(
          file_->path_of(tensor).string(), tensor.offset,
          tensor.name + ": expected " + std::to_string(tiling.end()) + " " + what + ", found " + std::to_string(found));
  }

  void add_parts(size_t number, const std::vector<std::string>& names) {
    const GgufTensor& tensor = file_->tensors()[number];
    const auto count = static_cast<int64_t>(names.size());
    const int rank = tensor.shape.rank();  // 3, or 2 of biases
    if (rank < 2 || rank > 3 || tensor.shape[0] != count)
      throw FormatError(file_->path_of(tensor).string(), tensor.offset,
                        tensor.name + ": expected " + std::to_string(count) + " matrices or vectors, found shape " +
                            to_string(tensor.shape));
    const Shape shape = rank == 3 ? Shape{tensor.shape[1], tensor.shape[2]} : Shape{tensor.shape[1]};
    for (int64_t i = 0; i < count; ++i) {
      infos_.push_back({names[static_cast<size_t>(i)], tensor.name, std::string(ggml_type(tensor.type)->name), shape,
                        tensor.nbytes / count});
      rows_.push_back({number, {}, rank == 3 ? i * shape[0] : i});
    }
  }

  int64_t heads_of(const Rows& held) const {
    const GgufTensor& tensor = file_->tensors()[held.tensor];
    const int64_t heads = held.place.interleaved_heads, rows = tensor.shape[0];
    if (heads > 0 && rows % (2 * heads) != 0)
      throw FormatError(file_->path_of(tensor).string(), tensor.offset,
                        tensor.name + ": " + std::to_string(rows) + " rows do not divide into " +
                            std::to_string(heads) + " heads of even size");
    return heads;
  }

  // Half-split row h·D + half·D/2 + i lies at h·D + 2i + half.
  static int64_t stored_row(int64_t row, int64_t rows, int64_t heads) {
    const int64_t head_dim = rows / heads, head = row / head_dim, within = row % head_dim;
    const int64_t half = within / (head_dim / 2), i = within % (head_dim / 2);
    return head * head_dim + 2 * i + half;
  }

  std::shared_ptr<const GgufFile> file_;
  std::vector<WeightInfo> infos_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::vector<Rows> rows_;  // of each of infos_
};

}  // namespace

std::unique_ptr<WeightSource> open_gguf_weights(std::shared_ptr<const GgufFile> file, const GgufPlaces& places) {
  return std::make_unique<GgufWeights>(std::move(file), places);
}

}  // namespace lathe::nn
