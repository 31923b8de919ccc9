// Matrix products. An output element is the sum, in order, of chains of 512 (bf16: 1024) fused multiply-adds along the reduced
// index, each ascending from zero, in f32 (f64 for f64; product and sum rounded apart where the CPU has no fma): whatever the batch,
// the blocking, the threads or the packing, the bits are the same. Where the CPU multiplies pairs of bf16 (and takes subnormals for
// zero) each 2048 terms are four chains, to which runs of eight go in turn. A LoRA term continues the last chain.
//
// On cuda and simt: f32 has the same chains, and the bits of a CPU with fma; bf16 and f16 are one chain of the tensor cores'
// steps of sixteen, the same whatever the batch and the shape of tile.
//
// dtypes: x, weight and LoRA operands are all f32, all bf16, all f16 or (on the CPU) all f64; out, bias and residual are of
// that dtype or f32. out is rounded once. f16 on the CPU is widened to f32 on the way: correct, not fast. Everything lies on
// one device. Matrices may have rows that lie apart, their elements are contiguous. ShapeError otherwise.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "kernels/matmul/weights/quantized_weight.h"

namespace lathe::kernels {

// A frozen weight [rows N, columns K], stored once in the panels that the kernel streams: panel p holds rows
// [p·width, (p+1)·width) with the row index fastest, so that a product broadcasts x and reads weights in order.
// f32: [K][width]; bf16: [K/2][width][2] (K padded to even with zeros); f16: as f32. Rows past N are zeros.
// On cuda and simt it is the dense matrix, whose rows start at multiples of 16 bytes: tiles are put into order by the kernel.
class PackedWeight {
 public:
  PackedWeight() = default;
  // Uninitialised panels for a weight of that shape, to be filled with pack_rows. dtype f32, bf16, f16 or (on the CPU) f64.
  static PackedWeight allocate(int64_t rows, int64_t columns, DType dtype, MemoryTag tag = MemoryTag::weights,
                               Device device = {});

  bool defined() const { return panels_.defined(); }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  DType dtype() const { return dtype_; }
  const Tensor& panels() const { return panels_; }
  Device device() const { return panels_.device(); }
  // The matrix [N, K] with contiguous rows. Devices only: on the CPU it lies in panels (ShapeError).
  Tensor dense() const;
  // The same panels, read as f32. f16 on the CPU only.
  PackedWeight as_f32() const;

  // Rounds and stores rows [first, first + count) given in f32, row-major with `columns` each. Different rows may be
  // packed from different threads at once. Fast when first and count are multiples of 16, word by word otherwise. On a
  // device the rows are rounded here, copied over, and have arrived on return.
  void pack_rows(int64_t first, int64_t count, const float* rows);
  // The reverse, into f32.
  void unpack_rows(int64_t first, int64_t count, float* rows) const;

 private:
  friend PackedWeight pack_weight(const Tensor& weight, DType dtype, MemoryTag tag);
  explicit PackedWeight(const Tensor& dense)
      : rows_(dense.dim(0)), columns_(dense.dim(1)), dtype_(dense.dtype()), panels_(dense) {}

  int64_t rows_ = 0, columns_ = 0;
  DType dtype_ = DType::f32;
  Tensor panels_;
};

// Packs a dense [N, K] tensor of any floating dtype, on its device. There it is the tensor itself, not a copy, when it has
// the dtype already.
PackedWeight pack_weight(const Tensor& weight, DType dtype, MemoryTag tag = MemoryTag::weights);

// A weight that a product reads: packed and frozen, dense [N, K] (packed on the fly, the same bits), or quantised and frozen (the
// bits of the weight dequantised to the dtype of the other operand).
struct WeightView {
  WeightView(const PackedWeight& packed) : packed(&packed) {}
  WeightView(const Tensor& dense) : dense(&dense) {}
  WeightView(const QuantizedWeight& quantized) : quantized(&quantized) {}
  const PackedWeight* packed = nullptr;
  const Tensor* dense = nullptr;
  const QuantizedWeight* quantized = nullptr;
  int64_t rows() const { return packed ? packed->rows() : dense ? dense->dim(0) : quantized->rows(); }
  int64_t columns() const { return packed ? packed->columns() : dense ? dense->dim(1) : quantized->columns(); }
  // Of a quantised weight f32, in which its values are exact; a product rounds them to the dtype of the other operand.
  DType dtype() const { return packed ? packed->dtype() : dense ? dense->dtype() : DType::f32; }
  Device device() const { return packed ? packed->device() : dense ? dense->device() : quantized->device(); }
};

// What joins the product before the one rounding. Any member may be undefined.
struct LinearTerms {
  Tensor lora_t;    // [M, r], x·Aᵀ already scaled; continues the last chain with lora_b
  Tensor lora_b;    // [N, r]
  Tensor bias;      // [N]
  Tensor residual;  // [M, N], added last; may be out
};

// out [M, N] = x [M, K] · weightᵀ (+ lora_t · lora_bᵀ) (+ bias) (+ residual).
void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms = {});

// grad_x [M, K] = grad_out [M, N] · weight (+ lora_dt [M, r] · lora_a [r, K]) (+ grad_x when accumulate):
// the sum runs along n, then along r.
void linear_input_gradient(const Tensor& grad_x, const Tensor& grad_out, WeightView weight, const Tensor& lora_dt = {},
                           const Tensor& lora_a = {}, bool accumulate = false);

// grad_weight f32|f64 [N, K] += Σ over sequences of cu_seqlens i32 [S + 1] (on the CPU), in order, of
// scale · (Σ over the sequence's tokens, ascending, grad_out[t, :]ᵀ x[t, :]). A batch of sequences gives the bits of the
// same sequences accumulated one by one.
void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale = 1.0f);

// out [M, N] = scale · (a [M, K] · b), b given as [N, K] (transposed_b) or [K, N]. Small products: LoRA's A and B.
enum class Layout { transposed, plain };
void matmul(const Tensor& out, const Tensor& a, const Tensor& b, Layout b_layout, float scale = 1.0f);

}  // namespace lathe::kernels
