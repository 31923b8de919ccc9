#include "kernels/matmul/weights/ggml/ggml_weight.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/cuda/upload.h"
#include "kernels/matmul/weights/ggml/device.h"
#include "kernels/matmul/weights/ggml/grids.h"
#include "kernels/matmul/weights/ggml/pack_tiles.h"
#include "kernels/matmul/weights/ggml/repack.h"
#include "kernels/matmul/weights/ggml/tiles.h"
#include "kernels/reference/element.h"

namespace lathe::kernels {
namespace {

using ggml::panel_rows;

// Lanes past the last row stay zeros: scales of 0.
template <class Format>
void pack_panel(const GgmlRows& from, int64_t panel, uint8_t* bytes, int64_t panel_bytes) {
  const int64_t first = panel * panel_rows, count = std::min(panel_rows, std::ssize(from.rows) - first);
  const int64_t units = from.columns / Format::elements;
  if (count < panel_rows) std::memset(bytes, 0, static_cast<size_t>(panel_bytes));
  for (int64_t unit = 0; unit < units; ++unit)
    for (int64_t lane = 0; lane < count; ++lane)
      ggml::pack_block<Format>(from.rows[static_cast<size_t>(first + lane)] + unit * Format::file_bytes,
                               bytes + unit * ggml::unit_bytes<Format>(), lane);
}

}  // namespace

GgmlWeight GgmlWeight::described(const GgmlRows& rows, DType dtype) {
  const int64_t elements = ggml::with_format(rows.format, []<class Format>() { return Format::elements; });
  if (rows.columns <= 0 || rows.columns % elements != 0)
    throw ShapeError("GgmlWeight: expected columns in whole blocks of " + std::to_string(elements) + " for " +
                     std::string(name_of(rows.format)) + ", found " + std::to_string(rows.columns));
  GgmlWeight weight;
  weight.rows_ = std::ssize(rows.rows), weight.columns_ = rows.columns;
  weight.format_ = rows.format, weight.dtype_ = dtype;
  return weight;
}

GgmlWeight GgmlWeight::pack(const GgmlRows& rows, DType dtype, MemoryTag tag) {
  GgmlWeight weight = described(rows, dtype);
  ggml::with_format(rows.format, [&]<class Format>() {
    if constexpr (ggml::HasGrid<Format>) ggml::expand_grids();
    const int64_t panels = (weight.rows_ + panel_rows - 1) / panel_rows;
    const int64_t panel_bytes = rows.columns / Format::elements * ggml::unit_bytes<Format>();
    weight.panels_ = Tensor::empty({panels, panel_bytes}, DType::u8, {}, tag);
    uint8_t* const bytes = weight.panels_.template data<uint8_t>();
    parallel_for(panels, 4, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) pack_panel<Format>(rows, p, bytes + p * panel_bytes, panel_bytes);
    });
  });
  return weight;
}

GgmlWeight GgmlWeight::send(const GgmlRows& rows, DType dtype, Device device, Upload& upload, MemoryTag tag) {
  GgmlWeight weight = described(rows, dtype);
  const int64_t tiles = (weight.rows_ + ggml::tile_rows_on_devices - 1) / ggml::tile_rows_on_devices;
  const int64_t bytes = ggml::tile_bytes(rows.format, rows.columns);
  weight.panels_ = Tensor::empty({tiles, bytes}, DType::u8, device, tag);
  upload.write(weight.panels_.raw(), tiles * bytes, bytes, [&](char* buffer, int64_t first, int64_t count) {
    ggml::pack_tiles(rows, first / bytes, count / bytes, reinterpret_cast<uint8_t*>(buffer));
  });
  return weight;
}

GgmlWeight GgmlWeight::for_dtype(DType dtype) const {
  GgmlWeight weight = *this;
  weight.dtype_ = dtype;
  return weight;
}

void GgmlWeight::dequantize_row(int64_t row, float* values) const {
  ggml::with_format(format_, [&]<class Format>() {
    const uint8_t* panel = panels_.data<uint8_t>() + row / panel_rows * panels_.dim(1);
    for (int64_t unit = 0; unit < columns_ / Format::elements; ++unit)
      ggml::unpack_block<Format>(panel + unit * ggml::unit_bytes<Format>(), row % panel_rows,
                                 values + unit * Format::elements);
  });
}

void GgmlWeight::dequantize(const Tensor& out, int64_t first_row) const {
  if (out.rank() != 2 || out.dim(1) != columns_ || first_row < 0 || first_row > rows_ - out.dim(0) ||
      (columns_ > 1 && out.stride(1) != 1))
    throw ShapeError("GgmlWeight::dequantize: expected rows of " + std::to_string(columns_) + " out of " +
                     std::to_string(rows_) + ", found " + describe(out) + " from row " + std::to_string(first_row));
  if (device().kind != DeviceKind::cpu) return device::ggml_rows_of(out, *this, nullptr, first_row);
  parallel_for(out.dim(0), 8, [&](int64_t begin, int64_t end) {
    std::vector<float> values(static_cast<size_t>(columns_));
    for (int64_t i = begin; i < end; ++i) {
      dequantize_row(first_row + i, values.data());
      for (int64_t k = 0; k < columns_; ++k)
        reference::write(out.dtype(), out.raw(), i * out.stride(0) + k,
                         static_cast<double>(values[static_cast<size_t>(k)]));
    }
  });
}

}  // namespace lathe::kernels
