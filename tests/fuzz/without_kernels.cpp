// What readers of files call of the kernels, for fuzz targets, which are built without them: no target computes.
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
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

Isa active_isa() { return Isa::baseline; }
std::string why_unavailable(Device) { return ""; }

}  // namespace lathe::kernels
