#include "kernels/matmul/weights/packed/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/dispatch.h"
#include "kernels/matmul/weights/packed/bodies.h"
#include "kernels/matmul/weights/panels.h"

namespace lathe::kernels {
namespace {

using gemm::panel_width;

int64_t padded_columns(int64_t columns, DType dtype) { return dtype == DType::bf16 ? (columns + 1) / 2 * 2 : columns; }

bool on_cpu(Device device) { return device.kind == DeviceKind::cpu; }

int64_t elements_in_16_bytes(DType dtype) { return 16 / size_of(dtype); }

void narrow(void* to, DType dtype, int64_t i, float value) {
  switch (dtype) {
    case DType::f32: static_cast<float*>(to)[i] = value; break;
    case DType::bf16: static_cast<bf16*>(to)[i] = bf16(value); break;
    default: static_cast<f16*>(to)[i] = f16(value);
  }
}

double* f64_row(const Tensor& panels, int64_t row, int64_t columns) {
  return panels.data<double>() + row / panel_width * columns * panel_width + row % panel_width;
}

void check_rows(const char* what, int64_t first, int64_t count, int64_t rows) {
  if (first < 0 || count < 0 || first + count > rows)
    throw ShapeError(std::string("PackedWeight::") + what + ": rows [" + std::to_string(first) + ", " +
                     std::to_string(first + count) + ") of a weight of " + std::to_string(rows));
}

float widen(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f32: return static_cast<const float*>(p)[i];
    case DType::bf16: return static_cast<float>(static_cast<const bf16*>(p)[i]);
    case DType::f16: return static_cast<float>(static_cast<const f16*>(p)[i]);
    default: return static_cast<float>(static_cast<const double*>(p)[i]);
  }
}

}  // namespace

PackedWeight PackedWeight::allocate(int64_t rows, int64_t columns, DType dtype, MemoryTag tag, Device device) {
  if (!is_floating(dtype) || (dtype == DType::f64 && !on_cpu(device)))
    throw ShapeError("PackedWeight: expected f32, bf16, f16 or (on the cpu) f64, found " + std::string(name_of(dtype)) +
                     " on " + to_string(device));
  PackedWeight weight;
  weight.rows_ = rows;
  weight.columns_ = columns;
  weight.dtype_ = dtype;
  if (!on_cpu(device)) {
    const int64_t piece = elements_in_16_bytes(dtype);
    weight.panels_ = Tensor::zeros({rows, (columns + piece - 1) / piece * piece}, dtype, device, tag);
    return weight;
  }
  const int64_t panels = (rows + panel_width - 1) / panel_width;
  const int64_t stored_columns = padded_columns(columns, dtype);
  const DType stored = dtype == DType::f16 ? DType::f32 : dtype;
  weight.panels_ = Tensor::empty({panels, stored_columns * panel_width}, stored, {}, tag);
  // The last panel's missing rows are zeros for good: pack_rows never touches them.
  if (rows % panel_width != 0) {
    const Tensor last = weight.panels_.select(0, panels - 1);
    std::memset(last.raw(), 0, static_cast<size_t>(last.nbytes()));
  }
  return weight;
}

PackedWeight PackedWeight::allocate_widened(int64_t rows, int64_t columns, MemoryTag tag) {
  if (columns % 2 != 0)
    throw ShapeError("PackedWeight::allocate_widened: expected an even number of columns, found " +
                     std::to_string(columns));
  PackedWeight weight = allocate(rows, columns, DType::bf16, tag);
  weight.dtype_ = DType::f32;
  return weight;
}

Tensor PackedWeight::dense() const {
  if (on_cpu(device())) throw ShapeError("PackedWeight::dense: this weight lies in panels, on the cpu");
  return panels_.slice(1, 0, columns_);
}

WeightPanels PackedWeight::product_panels() const {
  return {.data = panels_.raw(),
          .panel_bytes = panels_.dim(1) * size_of(panels_.dtype()),
          .widens = dtype_ == DType::f32 && panels_.dtype() == DType::bf16};
}

PackedWeight PackedWeight::as_f32() const {
  if (dtype_ != DType::f16 || !on_cpu(device()))
    throw ShapeError("PackedWeight::as_f32: expected f16 on the cpu, found " + std::string(name_of(dtype_)) + " on " +
                     to_string(device()));
  PackedWeight weight = *this;
  weight.dtype_ = DType::f32;
  return weight;
}

void PackedWeight::pack_rows(int64_t first, int64_t count, const float* rows) {
  check_rows("pack_rows", first, count, rows_);
  if (!on_cpu(device())) {
    const Tensor target = panels_.slice(0, first, first + count);
    const Tensor staged = Tensor::zeros(target.shape(), dtype_, {}, MemoryTag::workspace);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = 0; k < columns_; ++k)
        narrow(staged.raw(), dtype_, i * staged.dim(1) + k, rows[i * columns_ + k]);
    static std::mutex copying;  // threads round at once, and copy in turn
    const std::lock_guard lock(copying);
    return copy_bytes(device(), target.raw(), {}, staged.raw(), staged.nbytes());
  }
  if (dtype_ == DType::f16) {
    std::vector<float> rounded(rows, rows + count * columns_);
    for (float& value : rounded) value = static_cast<float>(f16(value));
    return as_f32().pack_rows(first, count, rounded.data());
  }
  if (dtype_ != DType::f64) {
    const PackRowsArgs args{static_cast<uint32_t*>(panels_.raw()),
                            panels_.dtype(),
                            panels_.dtype() != dtype_,
                            columns_,
                            first,
                            count,
                            rows};
    return with_isa([&]<Isa isa>() { kernels::pack_rows<isa>(args); });
  }
  for (int64_t i = 0; i < count; ++i) {
    double* out = f64_row(panels_, first + i, columns_);
    for (int64_t k = 0; k < columns_; ++k) out[k * panel_width] = rows[i * columns_ + k];
  }
}

void PackedWeight::unpack_rows(int64_t first, int64_t count, float* rows) const {
  check_rows("unpack_rows", first, count, rows_);
  if (!on_cpu(device())) {
    const Tensor source = panels_.slice(0, first, first + count), staged = Tensor::empty(source.shape(), dtype_);
    copy_bytes({}, staged.raw(), device(), source.raw(), source.nbytes());
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = 0; k < columns_; ++k)
        rows[i * columns_ + k] = widen(staged.raw(), dtype_, i * staged.dim(1) + k);
    return;
  }
  if (dtype_ != DType::f64) {
    const UnpackRowsArgs args{
        static_cast<const uint32_t*>(panels_.raw()), panels_.dtype(), columns_, first, count, rows};
    return with_isa([&]<Isa isa>() { kernels::unpack_rows<isa>(args); });
  }
  for (int64_t i = 0; i < count; ++i) {
    const double* in = f64_row(panels_, first + i, columns_);
    for (int64_t k = 0; k < columns_; ++k) rows[i * columns_ + k] = static_cast<float>(in[k * panel_width]);
  }
}

PackedWeight pack_weight(const Tensor& weight, DType dtype, MemoryTag tag) {
  if (weight.rank() != 2 || !is_floating(weight.dtype()))
    throw ShapeError("pack_weight: expected a floating tensor [N, K], found " + describe(weight));
  const int64_t rows = weight.dim(0), columns = weight.dim(1);
  if (!on_cpu(weight.device()) && weight.dtype() == dtype && weight.stride(1) == 1) return PackedWeight(weight);
  PackedWeight packed = PackedWeight::allocate(rows, columns, dtype, tag, weight.device());
  if (!on_cpu(weight.device())) {
    copy(packed.dense(), weight);
    return packed;
  }
  if (dtype == DType::f64 && weight.dtype() == DType::f64) {  // through f32 it would lose digits
    for (int64_t n = 0; n < rows; ++n) {
      double* out = f64_row(packed.panels(), n, columns);
      for (int64_t k = 0; k < columns; ++k)
        out[k * panel_width] = weight.data<double>()[n * weight.stride(0) + k * weight.stride(1)];
    }
    return packed;
  }
  if (weight.dtype() == DType::f32 && weight.is_contiguous()) {
    parallel_for(rows, 4 * panel_width, [&](int64_t begin, int64_t end) {
      packed.pack_rows(begin, end - begin, weight.data<float>() + begin * columns);
    });
    return packed;
  }
  const int64_t groups = (rows + panel_width - 1) / panel_width;
  const Tensor widened = Tensor::empty({thread_count(), panel_width, columns}, DType::f32, {}, MemoryTag::workspace);
  parallel_for(groups, 4, [&](int64_t begin, int64_t end) {
    float* buffer = widened.data<float>() + thread_index() * panel_width * columns;
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * panel_width;
      const int64_t count = std::min(panel_width, rows - first);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t k = 0; k < columns; ++k)
          buffer[i * columns + k] =
              widen(weight.raw(), weight.dtype(), (first + i) * weight.stride(0) + k * weight.stride(1));
      packed.pack_rows(first, count, buffer);
    }
  });
  return packed;
}

}  // namespace lathe::kernels
