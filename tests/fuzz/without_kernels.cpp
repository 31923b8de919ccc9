// What readers of files call of the kernels, for fuzz targets, which are built without them: no target computes.
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/weights/quantized_weight.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Floats from contiguous floats, else zeros.
void copy(const Tensor& out, const Tensor& in) {
  if (out.dtype() != DType::f32) throw ShapeError("copy: only to f32 here");
  const bool same = in.dtype() == DType::f32 && in.is_contiguous();
  float* const to = static_cast<float*>(out.raw());
  const auto* const from = static_cast<const float*>(in.raw());
  for (int64_t i = 0; i < out.numel(); ++i) to[i] = same ? from[i] : 0.0f;
}

// A weight of codes is opened, not read.
int64_t Nf4Weight::nbytes() const { return codes.nbytes(); }
void check_nf4(const char* operation, const Nf4Weight& weight) {
  if (weight.codes.numel() != (weight.numel() + 1) / 2) throw ShapeError(std::string(operation) + ": codes");
}
void nf4_dequantize(const Tensor&, const Nf4Weight&, int64_t) {}
bool QuantizedWeight::suits(int64_t, int64_t) { return true; }

Isa active_isa() { return Isa::baseline; }
std::string why_unavailable(Device) { return ""; }

}  // namespace lathe::kernels
