#pragma once

namespace lathe::kernels {

// Scales below it are divided by as if they were it, so that a block of zeros is divided by something.
inline constexpr float int8_least_scale = 1e-38f;

}  // namespace lathe::kernels
