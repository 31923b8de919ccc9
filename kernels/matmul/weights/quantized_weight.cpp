#include "kernels/matmul/weights/quantized_weight.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/matmul/cpu/gemm.h"
#include "kernels/nf4/codebook.h"
#include "kernels/nf4/scale.h"
#include "kernels/reference/element.h"

namespace lathe::kernels {
namespace {

using gemm::panel_width;

// The longest stretch of 32 or 64 that shares a scale wherever in a row it starts.
int64_t group_of(int64_t columns, int64_t block_size) {
  for (const int64_t group : {64, 32})
    if (columns % group == 0 && block_size % group == 0) return group;
  throw ShapeError(
      "a quantised weight for products: expected a multiple of 32 columns in blocks of 32 or more, found " +
      std::to_string(columns) + " columns in blocks of " + std::to_string(block_size));
}

// codes(row, group, lane, bytes) puts the codes of one row of a panel, its lane-th, into the bytes of a group; scale(row, group) is
// theirs. Rows past the last have scale 0.
template <class Codes, class Scale>
Tensor make_panels(int64_t rows, int64_t columns, int64_t group, QuantizedFormat format, MemoryTag tag,
                   const Codes& codes, const Scale& scale) {
  const int64_t panels = (rows + panel_width - 1) / panel_width, groups = columns / group;
  const int64_t group_bytes = gemm::quantized_group_bytes(format, group);
  const Tensor result = Tensor::empty({panels, groups * group_bytes}, DType::u8, {}, tag);
  parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t g = 0; g < groups; ++g) {
        uint8_t* bytes = result.data<uint8_t>() + (panel * groups + g) * group_bytes;
        std::memset(bytes, 0, static_cast<size_t>(group_bytes));
        float scales[panel_width] = {};
        for (int64_t lane = 0; lane < panel_width && panel * panel_width + lane < rows; ++lane) {
          scales[lane] = scale(panel * panel_width + lane, g);
          codes(panel * panel_width + lane, g, lane, bytes + gemm::quantized_scale_bytes);
        }
        std::memcpy(bytes, scales, sizeof scales);
      }
    }
  });
  return result;
}

}  // namespace

QuantizedWeight QuantizedWeight::pack(const Nf4Weight& weight, MemoryTag tag) {
  check_nf4("QuantizedWeight::pack", weight);
  QuantizedWeight result;
  result.rows_ = weight.rows, result.columns_ = weight.columns;
  result.group_ = group_of(weight.columns, weight.block_size);
  result.format_ = QuantizedFormat::nf4;
  const Tensor& scale_tensor = weight.nested() ? weight.nested_absmax : weight.absmax;
  if (weight.device().kind != DeviceKind::cpu || scale_tensor.dtype() == DType::f64) {
    result.nf4_ = weight;
    return result;
  }
  std::vector<float> scales(static_cast<size_t>(weight.blocks()));
  nf4_expand_scales(weight, scales.data());
  const uint8_t* all = weight.codes.data<uint8_t>();
  const int64_t group = result.group_;
  result.panels_ = make_panels(
      weight.rows, weight.columns, group, QuantizedFormat::nf4, tag,
      [&](int64_t row, int64_t g, int64_t lane, uint8_t* bytes) {
        const uint8_t* from = all + (row * weight.columns + g * group) / 2;
        for (int64_t k = 0; k < group; ++k) {
          const gemm::Nf4Place place = gemm::nf4_place(lane, k, group);
          const int code = k % 2 == 0 ? from[k / 2] >> 4 : from[k / 2] & 15;
          bytes[place.byte] = static_cast<uint8_t>(bytes[place.byte] | code << place.shift);
        }
      },
      [&](int64_t row, int64_t g) {
        return scales[static_cast<size_t>((row * weight.columns + g * group) / weight.block_size)];
      });
  return result;
}

QuantizedWeight QuantizedWeight::pack(const Int8Weight& weight, MemoryTag tag) {
  check_int8("QuantizedWeight::pack", weight);
  QuantizedWeight result;
  result.rows_ = weight.rows(), result.columns_ = weight.columns();
  result.group_ = group_of(weight.columns(), int8_block);
  result.format_ = QuantizedFormat::int8;
  if (weight.device().kind != DeviceKind::cpu || weight.scales.dtype() == DType::f64) {
    result.int8_ = weight;
    return result;
  }
  const uint8_t* all = static_cast<const uint8_t*>(weight.codes.raw());
  const float* scales = weight.scales.data<float>();
  const int64_t group = result.group_, blocks = weight.scales.dim(1);
  result.panels_ = make_panels(
      weight.rows(), weight.columns(), group, QuantizedFormat::int8, tag,
      [&](int64_t row, int64_t g, int64_t lane, uint8_t* bytes) {
        const uint8_t* from = all + row * weight.columns() + g * group;
        for (int64_t i = 0; i < group; ++i) bytes[gemm::int8_place(lane, i)] = from[i];
      },
      [&](int64_t row, int64_t g) { return scales[row * blocks + g * group / int8_block]; });
  return result;
}

Device QuantizedWeight::device() const {
  if (in_panels()) return panels_.device();
  return format_ == QuantizedFormat::nf4 ? nf4_.device() : int8_.device();
}

int64_t QuantizedWeight::nbytes() const {
  if (in_panels()) return panels_.nbytes();
  return format_ == QuantizedFormat::nf4 ? nf4_.nbytes() : int8_.nbytes();
}

void QuantizedWeight::dequantize(const Tensor& out, int64_t first_row) const {
  if (!in_panels())
    return format_ == QuantizedFormat::nf4 ? nf4_dequantize(out, nf4_, first_row)
                                           : int8_dequantize(out, int8_, first_row);
  if (out.rank() != 2 || out.dim(1) != columns_ || first_row < 0 || first_row + out.dim(0) > rows_ ||
      !out.is_contiguous())
    throw ShapeError("QuantizedWeight::dequantize: expected contiguous rows of " + std::to_string(columns_) +
                     " out of " + std::to_string(rows_) + ", found " + describe(out) + " from row " +
                     std::to_string(first_row));
  const int64_t group_bytes = gemm::quantized_group_bytes(format_, group_);
  parallel_for(out.dim(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = first_row + i, lane = row % panel_width;
      const uint8_t* panel = panels_.data<uint8_t>() + row / panel_width * panels_.dim(1);
      for (int64_t k = 0; k < columns_; ++k) {
        const uint8_t* bytes = panel + k / group_ * group_bytes;
        float scale;
        std::memcpy(&scale, bytes + lane * 4, 4);
        const uint8_t* codes = bytes + gemm::quantized_scale_bytes;
        const int64_t at = k % group_;
        float value;
        if (format_ == QuantizedFormat::nf4) {
          const gemm::Nf4Place place = gemm::nf4_place(lane, at, group_);
          value = nf4_codebook.values[codes[place.byte] >> place.shift & 15];
        } else {
          value = static_cast<float>(static_cast<int8_t>(codes[gemm::int8_place(lane, at)]));
        }
        reference::write(out.dtype(), out.raw(), i * columns_ + k, static_cast<double>(value * scale));
      }
    }
  });
}

}  // namespace lathe::kernels
