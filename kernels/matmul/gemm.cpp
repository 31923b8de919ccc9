// A product cut into pieces: rows and the reduced index into stretches whose left operand is packed once for all panels,
// then tiles × panels for the threads. How it is cut may depend on the number of threads; no element's chain does.
#include "kernels/matmul/cpu/gemm.h"

#include <algorithm>

#include "core/memory.h"
#include "core/thread_pool.h"

namespace lathe::kernels::gemm {
namespace {

// Memory of this thread that grows to what its largest product needed and is kept for the next one.
class Workspace {
 public:
  uint32_t* words(int64_t count) {
    if (storage_ == nullptr || storage_->nbytes() < count * 4) {
      storage_.reset();
      storage_ = Storage::allocate(std::max<int64_t>(count * 4, 64), Device{}, MemoryTag::workspace);
    }
    return static_cast<uint32_t*>(storage_->data());
  }

 private:
  std::shared_ptr<Storage> storage_;
};

// The caller's workspace is read by every thread while each uses its own, so one thread needs both.
thread_local Workspace left_workspace;
thread_local Workspace block_workspace;

constexpr int64_t packed_left_words = int64_t{1} << 21;  // 8 MB for a stretch of packed left operand
constexpr int64_t most_stretch_units = 8192;
static_assert(most_stretch_units % slab_units(Isa::avx512_bf16, Element::bf16) == 0,
              "a chain ends where a slab does, wherever stretches are cut");
// Tiles of a block. Their left operand over a slab should stay in the second-level cache (1 MB): 512×2048×512 in f32 on
// Zen 4 gives 86 % of the peak with 24 or 37 tiles, 1024×2048×512 82 % with 24, 79 % with 37 and 57 % with 74. 40 keeps 512
// rows whole, so that a panel which is packed on the way is packed once.
constexpr int64_t most_tiles = 40;
constexpr int64_t worth_a_fork = int64_t{1} << 17;  // multiply-adds below which a fork costs more than it gives
constexpr int64_t tile_overrun = 16;                // words that packing may write past a tile's end

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One stretch of rows and units with its packed left operand.
struct Stretch {
  const Problem& problem;
  int64_t row_offset;
  Tiling tiling;
  int64_t first_unit, last_unit;
  bool begins, ends;
  float* accumulators;  // of all panels, between stretches of units; null when there is one
};

struct PackedLeft {
  uint32_t* words = nullptr;
  int64_t tile_stride = 0;
};

// A single row in memory order is a packed tile already.
bool packed_as_it_lies(const Left& left, const Problem& problem, int64_t k) {
  return problem.m == 1 && !left.transposed && left_words(active_isa(), problem.element) == 1 &&
         (problem.element == Element::f32 || k % 2 == 0);
}

void pack(const PackLeft& all) {
  const int64_t words = all.tiling.rows * (all.last_unit - all.first_unit);
  const int64_t grain = words < worth_a_fork ? all.tiling.tiles : ceil_div(all.tiling.tiles, 4 * thread_count());
  parallel_for(all.tiling.tiles, grain, [&](int64_t begin, int64_t end) {
    PackLeft part = all;
    part.first_tile = begin;
    part.last_tile = end;
    cpu::gemm_pack_left(part);
  });
}

void multiply(const Stretch& stretch, PackedLeft left, PackedLeft left2) {
  const Problem& problem = stretch.problem;
  const int64_t accumulator_tile = tile_rows(active_isa()) * panel_width;
  const int64_t panels = ceil_div(problem.n, panel_width);
  const int64_t tiles = stretch.tiling.tiles;
  const int64_t units2 = stretch.ends ? units_of(problem.k2, problem.element) : 0;
  const int64_t work = stretch.tiling.rows * problem.n * ((stretch.last_unit - stretch.first_unit) + units2);

  // Panels are cut first, because a panel that is packed on the way is then packed by one thread only.
  const int64_t pieces = work < worth_a_fork ? 1 : int64_t{8} * thread_count();
  const int64_t panels_each = std::max<int64_t>(1, panels / pieces);
  const int64_t panel_groups = ceil_div(panels, panels_each);
  const int64_t tile_groups =
      std::min(tiles, std::max(ceil_div(tiles, most_tiles), pieces == 1 ? 1 : ceil_div(pieces / 2, panel_groups)));
  const int64_t tiles_each = ceil_div(tiles, tile_groups);

  parallel_for(panel_groups * ceil_div(tiles, tiles_each), 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      Block block;
      block.problem = &problem;
      block.row_offset = stretch.row_offset;
      block.tiling = stretch.tiling;
      block.first_panel = piece % panel_groups * panels_each;
      block.last_panel = std::min(panels, block.first_panel + panels_each);
      block.first_tile = piece / panel_groups * tiles_each;
      block.last_tile = std::min(tiles, block.first_tile + tiles_each);
      block.first_unit = stretch.first_unit;
      block.last_unit = stretch.last_unit;
      block.begins = stretch.begins;
      block.ends = stretch.ends;
      block.left = left.words;
      block.left_tile_stride = left.tile_stride;
      block.left2 = left2.words;
      block.left2_tile_stride = left2.tile_stride;
      const int64_t slab = slab_units(active_isa(), problem.element) * panel_width;
      uint32_t* words =
          block_workspace.words(slab + units2 * panel_width + (block.last_tile - block.first_tile) * accumulator_tile);
      block.slab = words;
      block.slab2 = words + slab;
      if (stretch.accumulators == nullptr) {
        block.accumulators = reinterpret_cast<float*>(words + slab + units2 * panel_width);
        block.accumulator_panel_stride = 0;
      } else {
        block.accumulator_panel_stride = tiles * accumulator_tile;
        block.accumulators = stretch.accumulators + block.first_panel * block.accumulator_panel_stride +
                             block.first_tile * accumulator_tile;
      }
      cpu::gemm_block(block);
    }
  });
}

}  // namespace

void run(const Problem& problem) {
  if (problem.m == 0 || problem.n == 0) return;
  const Isa isa = active_isa();
  const int64_t words = left_words(isa, problem.element);
  const int64_t units = units_of(problem.k, problem.element), units2 = units_of(problem.k2, problem.element);
  const int64_t unit_stretch = std::min(units, most_stretch_units);
  const int64_t row_stretch =
      std::clamp<int64_t>(packed_left_words / std::max<int64_t>(1, (unit_stretch + units2) * words), 256, 2048);
  const bool several_unit_stretches = unit_stretch < units;
  const int64_t panels = ceil_div(problem.n, panel_width);

  for (int64_t row = 0; row < problem.m; row += row_stretch) {
    Tiling tiling;
    tiling.rows = std::min(row_stretch, problem.m - row);
    tiling.tiles = ceil_div(tiling.rows, tile_rows(isa));
    const int64_t rows_of_tile = ceil_div(tiling.rows, tiling.tiles);

    PackedLeft left{nullptr, rows_of_tile * unit_stretch * words + tile_overrun};
    PackedLeft left2{nullptr, rows_of_tile * units2 * words + tile_overrun};
    const bool turned = uses_tables(problem, isa);
    const bool lies = !turned && packed_as_it_lies(problem.left, problem, problem.k);
    const bool lies2 = packed_as_it_lies(problem.left2, problem, problem.k2);
    const int64_t left_total = lies ? 0 : left.tile_stride * tiling.tiles;
    const int64_t left2_total = lies2 || units2 == 0 ? 0 : left2.tile_stride * tiling.tiles;
    const int64_t accumulator_total = several_unit_stretches ? panels * tiling.tiles * tile_rows(isa) * panel_width : 0;
    uint32_t* workspace = left_workspace.words(left_total + left2_total + accumulator_total);
    left.words = workspace;
    left2.words = workspace + left_total;
    Stretch stretch{problem, row, tiling, 0, 0, false, false, nullptr};
    if (several_unit_stretches) stretch.accumulators = reinterpret_cast<float*>(workspace + left_total + left2_total);

    if (lies2) {
      left2.words = static_cast<uint32_t*>(const_cast<void*>(problem.left2.data));
    } else if (units2 > 0) {
      pack({problem.left2, problem.element, problem.k2, row, tiling, 0, 0, 0, units2, left2.words, left2.tile_stride});
    }
    int64_t first = 0;
    do {
      stretch.first_unit = first;
      stretch.last_unit = std::min(units, first + unit_stretch);
      stretch.begins = first == 0;
      stretch.ends = stretch.last_unit == units;
      if (lies) {
        left.words = static_cast<uint32_t*>(const_cast<void*>(problem.left.data)) + first;
      } else {
        pack({problem.left, problem.element, problem.k, row, tiling, 0, 0, stretch.first_unit, stretch.last_unit,
              left.words, left.tile_stride, turned});
      }
      multiply(stretch, left, left2);
      first = stretch.last_unit;
    } while (first < units);
  }
}

}  // namespace lathe::kernels::gemm
