// Each format's grid.
#pragma once

#include "kernels/matmul/weights/ggml/grid_codes.h"

namespace lathe::kernels::ggml {

template <class Format>
constexpr const auto& grid_of() {
  if constexpr (std::is_same_v<Format, IQ2_XXS>) return iq2_xxs_grid;
  if constexpr (std::is_same_v<Format, IQ2_XS>) return iq2_xs_grid;
  if constexpr (std::is_same_v<Format, IQ2_S>) return iq2_s_grid;
  if constexpr (std::is_same_v<Format, IQ3_XXS>) return iq3_xxs_grid;
  if constexpr (std::is_same_v<Format, IQ3_S>) return iq3_s_grid;
  if constexpr (std::is_same_v<Format, IQ1_S> || std::is_same_v<Format, IQ1_M>) return iq1_s_grid;
}

}  // namespace lathe::kernels::ggml
