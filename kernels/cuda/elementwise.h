// Work without sums over [rows, columns]: a thread for each group of eight elements of a row (row.h).
#pragma once

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int elementwise_warps = 4;
inline constexpr int elementwise_threads = elementwise_warps * 32;

// The warps of a block stand below each other, each on its own row, and their tiles of 32 groups cover a row with
// little waste; or, for a few long rows (a vector, a step of decoding), beside each other on one. One division for each
// block.
struct Tiling {
  int64_t rows, columns;
  unsigned tiles_across;
  bool beside;
};

// A thread's elements: `count` from `column` on, none when it is 0.
struct Elements {
  int64_t row, column;
  int count;
};

__device__ __forceinline__ Elements elements_of_thread(const Tiling& tiling) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned tile_row = blockIdx.x / tiling.tiles_across, tile = blockIdx.x % tiling.tiles_across;
  const int64_t row = tiling.beside ? int64_t{tile_row} : int64_t{tile_row} * elementwise_warps + warp;
  const int64_t warp_tile = tiling.beside ? int64_t{tile} * elementwise_warps + warp : int64_t{tile};
  const int64_t column = (warp_tile * 32 + lane) * group_elements;
  if (row >= tiling.rows || column >= tiling.columns) return {0, 0, 0};
  return {row, column, group_size(tiling.columns, column)};
}

// kernel(args, tiling, more…) with elementwise_threads threads a block.
template <Launch how = Launch::after, class Args, class... More>
void launch_elementwise(const char* name, int64_t rows, int64_t columns, void (*kernel)(Args, Tiling, More...),
                        const Args& args, const More&... more) {
  if (rows == 0 || columns == 0) return;
  Tiling tiling{.rows = rows, .columns = columns, .tiles_across = 0, .beside = rows < elementwise_warps};
  const int64_t tile_columns = 32 * group_elements * (tiling.beside ? elementwise_warps : 1);
  const int64_t tile_rows = tiling.beside ? rows : (rows + elementwise_warps - 1) / elementwise_warps;
  tiling.tiles_across = static_cast<unsigned>((columns + tile_columns - 1) / tile_columns);
  const LaunchConfig config{.name = name,
                            .grid = dim3(static_cast<unsigned>(tile_rows * tiling.tiles_across)),
                            .block = dim3(elementwise_threads)};
  how == Launch::dependent ? launch_dependent(config, kernel, args, tiling, more...)
                           : launch(config, kernel, args, tiling, more...);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
