// y = x·Wᵀ (+ LoRA) (+ bias) (+ residual), one operation with a hand-written vjp (kernels/matmul/matmul.h).
// The LoRA term (Hu et al. 2021) costs no [T, N] tensor of its own; x is saved once however many linears read
// it. Different sequences may have different LoRA terms: a row's bits, and each term's gradients, are those of
// a batch with that term alone.
//
//   t = s · dropout(x)·Aᵀ         y = x·Wᵀ + t·Bᵀ + bias + residual
//   dt = s · dy·B                 dB += dyᵀ·t       dA += dtᵀ·dropout(x)     dbias += Σ dy
//   dx = dy·W + dropout(dt·A)     dW += dyᵀ·x       dresidual = dy
//
// A term with magnitudes is DoRA's (Liu et al. 2024, as PEFT has it: the norm is a constant, and dropout is that of the
// product, too): with x' = dropout(x), z = x'·Wᵀ + t·Bᵀ and c = magnitude ÷ norm
//
//   y = (x − x')·Wᵀ + c⊙z + bias + residual           dmagnitude += Σ dy⊙z ÷ norm       dB, dA as above from c⊙dy
//   dx = dy·W + dropout((c⊙dy − dy)·W + dt·A)
//
// A term with `joined` factors computes with those, [A; A₀] and [B, C₀] of rank 2r, of which A and B, the first r,
// train: an adapter that began as a part of W has C₀ = −B₀, so that it begins without effect.
#pragma once

#include <optional>
#include <vector>

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"
#include "kernels/dropout/dropout.h"
#include "kernels/matmul/matmul.h"

namespace lathe::autograd {

// A weight [N, K]: frozen, of any kind, or dense (a leaf trains, a constant does not). Cheap to copy.
class LinearWeight {
 public:
  LinearWeight(kernels::PackedWeight packed) : value_(std::move(packed)) {}
  LinearWeight(kernels::QuantizedWeight quantized) : value_(std::move(quantized)) {}
  LinearWeight(kernels::GgmlWeight ggml) : value_(std::move(ggml)) {}
  LinearWeight(Variable dense) : value_(dense.value()), dense_(std::move(dense)) {}
  LinearWeight(Tensor dense) : LinearWeight(Variable(std::move(dense))) {}
  const kernels::Weight& value() const { return value_; }
  int64_t rows() const { return value_.rows(); }
  int64_t columns() const { return value_.columns(); }
  DType dtype() const { return value_.dtype(); }
  // What an operation takes as its input: undefined where the weight is packed or of codes.
  const Variable& dense() const { return dense_; }
  // What an operation saves so that a change of the weight is noticed. Undefined for one of codes, which
  // have no way to change.
  Tensor versioned() const {
    const kernels::PackedWeight* packed = value_.packed();
    return packed ? packed->panels() : dense_.value();
  }

 private:
  kernels::Weight value_;
  Variable dense_;
};

// a [r, K], b [N, r] of x's dtype. In bf16 training they are bf16 leaves (their gradients are f32), cast from
// f32 masters once for each optimiser step.
struct LoraTerm {
  Variable a, b;
  float scale = 1.0f;                         // lora_alpha / r
  kernels::DropoutParams dropout;             // of x, before a; probability 0 for none
  std::optional<SequenceRun> sequences = {};  // that it applies to; all of them where it is not given
  // DoRA: f32 [N] (f64 for f64), the trained magnitudes and 1 ÷ ‖W + s·B·A‖ of each row. Both undefined for LoRA.
  Variable magnitude = {};
  Tensor inverse_norm = {};
  // [2r, K] and [N, 2r], whose first r rows and columns are a and b. Both undefined where a and b are all there is; not
  // with magnitudes.
  Tensor joined_a = {}, joined_b = {};
};

struct LinearTerms {
  Variable bias;               // [N]; may be undefined
  Variable residual;           // [T, N]; may be undefined
  std::vector<LoraTerm> lora;  // their sequences ascend and do not overlap; those between have the base weight alone
};

// x [T, K] → [T, N], of x's dtype. ShapeError where a term's sequences are not some of the layout's, in order, and
// where a weight beside magnitudes is to be trained.
Variable linear(const Variable& x, const LinearWeight& weight, const SequenceLayout& layout,
                const LinearTerms& terms = {});

}  // namespace lathe::autograd
