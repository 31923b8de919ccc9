// A block's scale on the host.
#pragma once

#include "kernels/nf4/bodies.h"
#include "kernels/nf4/nf4.h"

namespace lathe::kernels {

// Scales of a checked weight, for bodies. f32 tensors.
Nf4ScaleArgs nf4_scale_args(const Nf4Weight& weight);
// Each block's scale, to f32 [blocks], of a weight on the CPU.
void nf4_expand_scales(const Nf4Weight& weight, float* scales);

}  // namespace lathe::kernels
