#include "kernels/matmul/weights/quantized_weight.h"

#include <cstring>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/reference/element.h"

namespace lathe::kernels {
namespace {

using gemm::panel_width;

// The longest group of 64 or 32 that shares a scale wherever in a row it starts; 0 where there is none.
int64_t longest_group(int64_t columns, int64_t block_size) {
  for (const int64_t group : {64, 32})
    if (columns % group == 0 && block_size % group == 0) return group;
  return 0;
}

int64_t group_of(int64_t columns, int64_t block_size) {
  if (const int64_t group = longest_group(columns, block_size); group > 0) return group;
  throw ShapeError(
      "a quantised weight for products: expected a multiple of 32 columns in blocks of 32 or more, found " +
      std::to_string(columns) + " columns in blocks of " + std::to_string(block_size));
}

// Rows past the last have scale 0.
template <class Format>
Tensor pack_panels(const typename Format::Stored& stored, int64_t group, MemoryTag tag) {
  const typename Format::Reader reader(stored);
  const int64_t rows = Format::rows(stored), columns = Format::columns(stored);
  const int64_t panels = (rows + panel_width - 1) / panel_width, groups = columns / group;
  constexpr auto bytes_of = gemm::group_bytes<Format>;
  const Tensor result = Tensor::empty({panels, groups * bytes_of(group)}, DType::u8, {}, tag);
  parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t g = 0; g < groups; ++g) {
        uint8_t* bytes = result.data<uint8_t>() + (panel * groups + g) * bytes_of(group);
        std::memset(bytes, 0, static_cast<size_t>(bytes_of(group)));
        float scales[panel_width] = {};
        for (int64_t lane = 0; lane < panel_width && panel * panel_width + lane < rows; ++lane) {
          const int64_t row = panel * panel_width + lane;
          scales[lane] = reader.scale(row, g * group);
          for (int64_t k = 0; k < group; ++k)
            Format::put(bytes + gemm::scale_bytes, group, lane, k, reader.code(row, g * group + k));
        }
        std::memcpy(bytes, scales, sizeof scales);
      }
    }
  });
  return result;
}

// Rows [first_row, first_row + out.dim(0)) of a weight in panels.
template <class Format>
void dequantize_panels(const Tensor& out, const Tensor& panels, int64_t columns, int64_t group, int64_t first_row) {
  const int64_t group_bytes = gemm::group_bytes<Format>(group);
  parallel_for(out.dim(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = first_row + i, lane = row % panel_width;
      const uint8_t* panel = panels.data<uint8_t>() + row / panel_width * panels.dim(1);
      for (int64_t k = 0; k < columns; ++k) {
        const uint8_t* bytes = panel + k / group * group_bytes;
        float scale;
        std::memcpy(&scale, bytes + lane * 4, 4);
        const float value = Format::value(bytes + gemm::scale_bytes, group, lane, k % group) * scale;
        reference::write(out.dtype(), out.raw(), i * columns + k, static_cast<double>(value));
      }
    }
  });
}

}  // namespace

bool QuantizedWeight::suits(int64_t columns, int64_t block_size) { return longest_group(columns, block_size) > 0; }

QuantizedWeight QuantizedWeight::pack(const StoredWeight& weight, MemoryTag tag) {
  QuantizedWeight result;
  with_format(static_cast<QuantizedFormat>(weight.index()), [&]<class Format>() {
    const auto& stored = std::get<typename Format::Stored>(weight);
    Format::check("QuantizedWeight::pack", stored);
    result.rows_ = Format::rows(stored), result.columns_ = Format::columns(stored);
    result.group_ = group_of(result.columns_, Format::block_size(stored));
    if (stored.device().kind != DeviceKind::cpu || Format::scale_dtype(stored) == DType::f64) {
      result.stored_ = stored;
    } else {
      result.stored_ = typename Format::Stored{};
      result.panels_ = pack_panels<Format>(stored, result.group_, tag);
    }
  });
  return result;
}

QuantizedWeight QuantizedWeight::quantize(const Tensor& weight, QuantizedFormat format, MemoryTag tag) {
  const bool kept = weight.device().kind != DeviceKind::cpu;  // otherwise the codes go on into panels
  return with_format(
      format, [&]<class Format>() { return pack(Format::quantize(weight, kept ? tag : MemoryTag::workspace), tag); });
}

Device QuantizedWeight::device() const {
  if (in_panels()) return panels_.device();
  return std::visit([](const auto& stored) { return stored.device(); }, stored_);
}

int64_t QuantizedWeight::nbytes() const {
  if (in_panels()) return panels_.nbytes();
  return std::visit([](const auto& stored) { return stored.nbytes(); }, stored_);
}

WeightPanels QuantizedWeight::product_panels() const {
  return {.data = panels_.raw(), .panel_bytes = panels_.dim(1), .group = group_, .format = format()};
}

void QuantizedWeight::dequantize(const Tensor& out, int64_t first_row) const {
  with_format(format(), [&]<class Format>() {
    if (!in_panels()) return Format::dequantize(out, std::get<typename Format::Stored>(stored_), first_row);
    if (out.rank() != 2 || out.dim(1) != columns_ || first_row < 0 || first_row + out.dim(0) > rows_ ||
        !out.is_contiguous())
      throw ShapeError("QuantizedWeight::dequantize: expected contiguous rows of " + std::to_string(columns_) +
                       " out of " + std::to_string(rows_) + ", found " + describe(out) + " from row " +
                       std::to_string(first_row));
    dequantize_panels<Format>(out, panels_, columns_, group_, first_row);
  });
}

}  // namespace lathe::kernels
