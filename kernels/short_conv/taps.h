// How many tokens a short convolution (short_conv.h) may see.
#pragma once

namespace lathe::kernels {

inline constexpr int most_conv_taps = 8;

}  // namespace lathe::kernels
