#pragma once

namespace lathe::kernels {

// A smaller scale counts as this one in divisions, so that a block of zeros is not divided by zero.
inline constexpr float int8_least_scale = 1e-38f;

}  // namespace lathe::kernels
