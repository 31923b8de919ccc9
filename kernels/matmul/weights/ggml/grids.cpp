#include "kernels/matmul/weights/ggml/grids.h"

#include <mutex>

#include "kernels/matmul/weights/ggml/grid_of.h"

namespace lathe::kernels::ggml {
namespace {

template <class Format>
void expand() {
  const auto& grid = grid_of<Format>();
  using Word = GridWord<Format::grid_neighbours>;
  static_assert(grid.entries == Format::grid_entries && grid.neighbours == Format::grid_neighbours);
  for (int entry = 0; entry < grid.entries; ++entry) {
    Word word = 0;
    for (int i = 0; i < grid.neighbours; ++i) word |= Word{static_cast<uint8_t>(grid.value(entry, i))} << (8 * i);
    ExpandedGrid<Format>::words[entry] = word;
  }
}

}  // namespace

void expand_grids() {
  static std::once_flag once;
  std::call_once(once, [] {
    expand<IQ2_XXS>();
    expand<IQ2_XS>();
    expand<IQ2_S>();
    expand<IQ3_XXS>();
    expand<IQ3_S>();
    expand<IQ1_S>();
  });
}

}  // namespace lathe::kernels::ggml
