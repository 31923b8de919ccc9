// A product is cut into passes over rows and k, whose left operand is packed once for all panels; a pass into tiles ×
// panels for the threads.
#include "kernels/matmul/schedule.h"

#include <algorithm>
#include <span>
#include <vector>

#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/dispatch.h"

namespace lathe::kernels {
namespace {

using gemm::k_block_steps;
using gemm::k_steps;
using gemm::left_rows;
using gemm::left_steps;
using gemm::left_words;
using gemm::panel_width;
using gemm::tile_rows;
using gemm::Tiling;

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

// The packed left operand is the calling thread's and is read by all, while each has a workspace for its task: so a
// thread needs both.
thread_local Workspace left_workspace;
thread_local Workspace task_workspace;

// 8 MB for the packed left operand of a pass. With 16 the right one is packed half as often, and yet 2048 x 2048 x 2048
// took a fifth longer: left operand and sums come from beyond the last cache.
constexpr int64_t packed_left_words = int64_t{1} << 21;
constexpr int64_t most_pass_steps = 8192;
static_assert(most_pass_steps % k_block_steps(Isa::avx512_bf16, DType::bf16) == 0,
              "a chain ends where a k block does, wherever passes are cut");
constexpr int64_t worth_a_fork = int64_t{1} << 17;  // multiply-adds below which a fork costs more than it gives
constexpr int64_t tile_overrun = 16;                // words that packing may write past a tile's end

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// k steps of the second pair, or of the longest of several.
int64_t second_steps(const ProductArgs& product) {
  int64_t k = product.k2;
  for (const SecondPair& pair : product.second_pairs) k = std::max(k, pair.k);
  return k_steps(k, product.dtype);
}

int64_t second_panels(const ProductArgs& product) {
  return std::max<int64_t>(1, static_cast<int64_t>(product.second_pairs.size()));
}

// Rows from row_offset on, cut into tiles, and k steps [first_step, last_step).
struct Pass {
  const ProductArgs& product;
  int64_t row_offset;
  Tiling tiling;
  int64_t first_step, last_step;
  bool begins, ends;
  float* accumulators;  // of all panels, from pass to pass along k; null when there is one
  const SecondRow* second_rows;
};

struct PackedLeft {
  uint32_t* words = nullptr;
  int64_t tile_stride = 0;
};

bool has_tiles(const ProductArgs& product) { return product.dtype == DType::bf16; }

// Words of a packed tile of some rows of the left operand.
int64_t packed_words(Isa isa, DType dtype, int64_t rows, int64_t steps) {
  return left_rows(isa, dtype, rows) * left_steps(isa, dtype, steps) * left_words(isa, dtype) + tile_overrun;
}

// A single row in memory order is a packed tile already.
bool is_packed_in_memory(const ProductArgs& product, int64_t k) {
  const Isa isa = active_isa();
  const int64_t steps = k_steps(k, product.dtype);
  return product.m == 1 && product.layout != ProductLayout::columns_plain && left_words(isa, product.dtype) == 1 &&
         left_steps(isa, product.dtype, steps) == steps && (product.dtype == DType::f32 || k % 2 == 0);
}

// Panels that a thread streams one after the other, where few rows read them from memory: what is prefetched past the
// end of a panel is its own then. With a panel to a task, which the threads take in turn, 8 rows of 576 x 576 took 52
// us instead of 31, of 576 x 1536 122 instead of 97 (bf16, two threads). A weight of more than 256 KB for each thread
// comes in several runs, up to 8, so that a thread that was held up gets fewer.
int64_t panels_of_a_run(const ProductArgs& product, int64_t panels) {
  constexpr int64_t least_run_bytes = int64_t{1} << 18, most_runs = 8;
  const int64_t threads = thread_count();
  const int64_t runs = panels * product.panels.panel_bytes / (threads * least_run_bytes);
  return ceil_div(panels, threads * std::clamp<int64_t>(runs, 1, most_runs));
}

void pack(const PackLeftArgs& all) {
  const int64_t words = all.tiling.rows * (all.last_step - all.first_step);
  const int64_t grain = words < worth_a_fork ? all.tiling.tiles : ceil_div(all.tiling.tiles, 4 * thread_count());
  parallel_for(all.tiling.tiles, grain, [&](int64_t begin, int64_t end) {
    PackLeftArgs part = all;
    part.first_tile = begin;
    part.last_tile = end;
    with_product_isa(all.left.dtype == DType::bf16, [&]<Isa isa>() { pack_left<isa>(part); });
  });
}

// A pass cut into tasks: some tiles × some panels.
class PassTasks {
 public:
  PassTasks(const Pass& pass, PackedLeft left, PackedLeft left2) : pass_(pass), left_(left), left2_(left2) {
    const ProductArgs& product = pass.product;
    const int64_t tiles = pass.tiling.tiles;
    const int64_t work = pass.tiling.rows * product.n * ((pass.last_step - pass.first_step) + steps2_);
    // Panels are cut first, because a panel that is packed on the way is then packed by one thread only.
    const int64_t tasks = work < worth_a_fork ? 1 : int64_t{8} * thread_count();
    const bool streams = tiles <= 2 && product.panels.data != nullptr && product.layout == ProductLayout::rows_rows;
    panels_each_ = streams && tasks > 1 ? panels_of_a_run(product, panels_) : std::max<int64_t>(1, panels_ / tasks);
    panel_groups_ = ceil_div(panels_, panels_each_);
    const int64_t tile_groups = std::min(tiles, tasks == 1 ? 1 : ceil_div(tasks / 2, panel_groups_));
    tiles_each_ = ceil_div(tiles, tile_groups);
  }

  int64_t count() const { return panel_groups_ * ceil_div(pass_.tiling.tiles, tiles_each_); }

  void run(int64_t task) const {
    MultiplyTilesArgs args = arguments(task);
    give_workspace(args);
    with_product_isa(has_tiles(pass_.product), [&]<Isa isa>() { multiply_tiles<isa>(args); });
  }

 private:
  MultiplyTilesArgs arguments(int64_t task) const {
    MultiplyTilesArgs args;
    args.product = &pass_.product;
    args.row_offset = pass_.row_offset;
    args.tiling = pass_.tiling;
    args.first_panel = task % panel_groups_ * panels_each_;
    args.last_panel = std::min(panels_, args.first_panel + panels_each_);
    args.first_tile = task / panel_groups_ * tiles_each_;
    args.last_tile = std::min(pass_.tiling.tiles, args.first_tile + tiles_each_);
    args.first_step = pass_.first_step;
    args.last_step = pass_.last_step;
    args.begins = pass_.begins;
    args.ends = pass_.ends;
    args.left = left_.words;
    args.left_tile_stride = left_.tile_stride;
    args.left2 = left2_.words;
    args.left2_tile_stride = left2_.tile_stride;
    args.second_rows = pass_.second_rows;
    args.second_steps = steps2_;
    // One or two tiles read their panels once, in the order of memory.
    args.panels_at_once = tiles_each_ <= 2 ? 1 : std::min(panels_each_, gemm::most_panels_at_once);
    args.accumulators_of_all = pass_.accumulators != nullptr;
    return args;
  }

  // Memory of this thread for panels that are packed on the way, and for sums.
  void give_workspace(MultiplyTilesArgs& args) const {
    const int64_t block_steps = k_block_steps(active_isa(), pass_.product.dtype);
    const int64_t accumulator_tile = tile_rows(active_isa(), pass_.product.dtype) * panel_width;
    // Sums that are complete after their only k block need no memory of their own.
    const bool one_block = pass_.last_step - pass_.first_step <= block_steps;
    const int64_t own_tiles = args.last_tile - args.first_tile;
    const int64_t panel = args.panels_at_once * block_steps * panel_width;
    const int64_t panel2 = args.panels_at_once * second_panels(pass_.product) * steps2_ * panel_width;
    const int64_t own_sums = one_block ? accumulator_tile : args.panels_at_once * own_tiles * accumulator_tile;
    uint32_t* words = task_workspace.words(panel + panel2 + own_sums);
    args.panel = words;
    args.panel2 = words + panel;
    if (args.accumulators_of_all) {
      args.accumulator_tile_stride = accumulator_tile;
      args.accumulator_panel_stride = pass_.tiling.tiles * accumulator_tile;
      args.accumulators =
          pass_.accumulators + args.first_panel * args.accumulator_panel_stride + args.first_tile * accumulator_tile;
    } else {
      args.accumulators = reinterpret_cast<float*>(words + panel + panel2);
      args.accumulator_tile_stride = one_block ? 0 : accumulator_tile;
      args.accumulator_panel_stride = own_tiles * args.accumulator_tile_stride;
    }
  }

  Pass pass_;
  PackedLeft left_, left2_;
  int64_t panels_ = ceil_div(pass_.product.n, panel_width), steps2_ = pass_.ends ? second_steps(pass_.product) : 0;
  int64_t panels_each_ = 0, panel_groups_ = 0, tiles_each_ = 0;
};

// The tasks of passes over one packed left operand, in one parallel region.
void multiply(std::span<const PassTasks> passes) {
  int64_t count = 0;
  for (const PassTasks& pass : passes) count += pass.count();
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t task = i;
      const PassTasks* pass = passes.data();
      for (; task >= pass->count(); ++pass) task -= pass->count();
      pass->run(task);
    }
  });
}

// The second pairs' left operands, each row on its own, into `words`.
std::vector<SecondRow> pack_second_rows(const ProductArgs& product, int64_t first_row, int64_t rows, int64_t stride,
                                        uint32_t* words) {
  std::vector<SecondRow> packed(static_cast<size_t>(rows));
  for (size_t i = 0; i < product.second_pairs.size(); ++i) {
    const SecondPair& pair = product.second_pairs[i];
    const int64_t begin = std::max<int64_t>(pair.begin - first_row, 0), end = std::min(pair.end - first_row, rows);
    for (int64_t row = begin; row < end; ++row)
      packed[static_cast<size_t>(row)] = {static_cast<int64_t>(i), words + row * stride};
    if (begin >= end || pair.k == 0) continue;
    const PackLeftArgs args{pair.left, false, pair.k, first_row - pair.begin,         {rows, rows},
                            begin,     end,   0,      k_steps(pair.k, product.dtype), words,
                            stride};
    with_product_isa(has_tiles(product), [&]<Isa isa>() { pack_left<isa>(args); });
  }
  return packed;
}

// Passes along k over rows [row, row + tiling.rows) of products of one left operand: where there are several, without
// second pairs, and in one pass.
void multiply_rows(std::span<const ProductArgs> products, int64_t row, const Tiling& tiling, int64_t pass_steps) {
  const Isa isa = active_isa();
  const ProductArgs& product = products[0];
  const int64_t steps = k_steps(product.k, product.dtype), steps2 = second_steps(product);
  const int64_t panels = ceil_div(product.n, panel_width), rows_of_tile = ceil_div(tiling.rows, tiling.tiles);
  const bool transposed = product.layout == ProductLayout::columns_plain;
  const bool several_passes = pass_steps < steps;

  PackedLeft left{nullptr, packed_words(isa, product.dtype, rows_of_tile, pass_steps)};
  const bool each_its_own = !product.second_pairs.empty();
  PackedLeft left2{nullptr, packed_words(isa, product.dtype, each_its_own ? 1 : rows_of_tile, steps2)};
  const bool by_chain = decodes_by_tables(product, isa);
  const bool in_memory = !by_chain && is_packed_in_memory(product, product.k);
  const bool in_memory2 = !each_its_own && is_packed_in_memory(product, product.k2);
  const int64_t left_total = in_memory ? 0 : left.tile_stride * tiling.tiles;
  const int64_t left2_tiles = each_its_own ? tiling.rows : tiling.tiles;
  const int64_t left2_total = in_memory2 || steps2 == 0 ? 0 : left2.tile_stride * left2_tiles;
  const int64_t accumulator_total =
      several_passes ? panels * tiling.tiles * tile_rows(isa, product.dtype) * panel_width : 0;
  uint32_t* workspace = left_workspace.words(left_total + left2_total + accumulator_total);
  left.words = workspace;
  left2.words = workspace + left_total;
  float* const accumulators = several_passes ? reinterpret_cast<float*>(workspace + left_total + left2_total) : nullptr;

  std::vector<SecondRow> second_rows;
  if (each_its_own) {
    second_rows = pack_second_rows(product, row, tiling.rows, left2.tile_stride, left2.words);
  } else if (in_memory2) {
    left2.words = static_cast<uint32_t*>(product.left2.data);
  } else if (steps2 > 0) {
    pack({product.left2, transposed, product.k2, row, tiling, 0, 0, 0, steps2, left2.words, left2.tile_stride});
  }
  int64_t first = 0;
  do {
    const int64_t last = std::min(steps, first + pass_steps);
    if (in_memory) {
      left.words = static_cast<uint32_t*>(product.left.data) + first;
    } else {
      pack({product.left, transposed, product.k, row, tiling, 0, 0, first, last, left.words, left.tile_stride,
            by_chain});
    }
    std::vector<PassTasks> passes;
    for (const ProductArgs& each : products)
      passes.emplace_back(
          Pass{each, row, tiling, first, last, first == 0, last == steps, accumulators, second_rows.data()}, left,
          left2);
    multiply(passes);
    first = last;
  } while (first < steps);
}

void multiply_once(std::span<const ProductArgs> products) {
  const ProductArgs& product = products[0];
  const int64_t steps = k_steps(product.k, product.dtype), steps2 = second_steps(product);
  const int64_t words = left_words(active_isa(), product.dtype);
  const int64_t pass_steps = std::min(steps, most_pass_steps);
  const int64_t most_rows =
      std::clamp<int64_t>(packed_left_words / std::max<int64_t>(1, (pass_steps + steps2) * words), 256, 2048);
  const int64_t pass_rows = ceil_div(product.m, ceil_div(product.m, most_rows));
  for (int64_t row = 0; row < product.m; row += pass_rows) {
    const int64_t rows = std::min(pass_rows, product.m - row);
    multiply_rows(products, row, {rows, ceil_div(rows, tile_rows(active_isa(), product.dtype))}, pass_steps);
  }
}

// The rows of a matrix from one on.
ProductMatrix from_row(const ProductMatrix& matrix, int64_t row) {
  ProductMatrix result = matrix;
  result.data = static_cast<char*>(matrix.data) + row * matrix.stride * size_of(matrix.dtype);
  return result;
}

}  // namespace

void multiply_on_cpu(const ProductArgs& args) {
  if (args.m == 0 || args.n == 0) return;
  if (args.cu_seqlens == nullptr) return multiply_once({&args, 1});
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t begin = args.cu_seqlens[s], end = args.cu_seqlens[s + 1];
    if (begin == end) continue;
    ProductArgs sequence = args;
    sequence.left = from_row(args.left, begin);
    sequence.right = from_row(args.right, begin);
    sequence.k = end - begin;
    multiply_once({&sequence, 1});
  }
}

void multiply_joined_on_cpu(std::span<const ProductArgs> products) { multiply_once(products); }

void multiply_grouped_on_cpu(std::span<const ProductArgs> products) {
  const Isa isa = active_isa();
  struct Rows {
    Tiling tiling;
    int64_t steps;
    PackedLeft left;
  };
  const auto rows_of = [&](const ProductArgs& product) {
    const Tiling tiling{product.m, ceil_div(product.m, tile_rows(isa, product.dtype))};
    const int64_t steps = k_steps(product.k, product.dtype);
    return Rows{tiling, steps, {nullptr, packed_words(isa, product.dtype, ceil_div(tiling.rows, tiling.tiles), steps)}};
  };
  int64_t words = 0;
  for (const ProductArgs& product : products) {
    const Rows rows = rows_of(product);
    words += rows.left.tile_stride * rows.tiling.tiles;
  }
  uint32_t* workspace = left_workspace.words(words);
  std::vector<PassTasks> passes;
  PackedLeft packed;
  const ProductArgs* whose = nullptr;
  const auto is_packed = [&](const ProductArgs& product) {
    return whose != nullptr && whose->left.data == product.left.data && whose->left.stride == product.left.stride &&
           whose->m == product.m && whose->k == product.k && whose->dtype == product.dtype;
  };
  for (const ProductArgs& product : products) {
    auto [tiling, steps, left] = rows_of(product);
    if (is_packed(product)) {
      left = packed;
    } else if (is_packed_in_memory(product, product.k)) {
      left.words = static_cast<uint32_t*>(product.left.data);
    } else {
      left.words = workspace;
      workspace += left.tile_stride * tiling.tiles;
      pack({product.left, false, product.k, 0, tiling, 0, 0, 0, steps, left.words, left.tile_stride});
    }
    packed = left, whose = &product;
    passes.emplace_back(Pass{product, 0, tiling, 0, steps, true, true, nullptr, nullptr}, left, PackedLeft{});
  }
  multiply(passes);
}

bool is_one_pass(int64_t k, DType dtype) { return k_steps(k, dtype) <= most_pass_steps; }

}  // namespace lathe::kernels
