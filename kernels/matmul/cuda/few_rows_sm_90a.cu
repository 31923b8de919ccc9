// Up to 16 rows times dense weights, bf16 and f16, by bulk copies and wgmma (sm_90a). A decode step's product is done
// when its weight has been read: a block is one thread that keeps bulk copies under way, some 64 to 80 KB of the weight
// in flight on each multiprocessor, and a warpgroup that does nothing but multiply what has come.
//
// The weight's rows are wgmma's M side, the rows of x its N side of 8 or 16. A tile is 8 to 64 rows of the weight, so
// many that each multiprocessor has as good as the same to read; where it has fewer than 64, wgmma multiplies whatever
// lies behind them as well, and nobody looks at those sums. One chain of sums along k takes half of the time that
// mma.sync takes, and 64 rows no longer than eight.
//
// A weight at rest is asked for before the kernels before have ended, as much of it as there are stages for. For that,
// two such blocks have room on a multiprocessor: those of this kernel, and those of the next.
//
// Steps along k are those of dense.cu, sixteen at a time to the end of the last 64, and so are the bits.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/ptx/wgmma.h"
#include "kernels/cuda/tile/bulk_pipeline.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/mainloop.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int warpgroup = 128, consuming_warps = 4, producing_warp = 4;
constexpr int most_rows = 64;                // of the weight in a tile
constexpr int half_columns = most_rows / 2;  // of gate and of up in the sums of a tile
constexpr int most_stages = 16;
constexpr int stages_bytes = 98 << 10;  // of two blocks, and what other kernels of a decode step take besides
constexpr int line_bytes = block_k * 2;

// How a launch goes through its weights.
struct Plan {
  int rows;        // of the weight in a tile, by eights
  int boxes;       // of 64 along k, in a stage
  int stages;      // that there is room for
  unsigned tiles;  // block b has b, b + gridDim.x …
  bool at_rest;    // the weights

  __host__ __device__ __forceinline__ int stage_bytes(int left_rows) const {
    return boxes * (rows + left_rows) * line_bytes;
  }
};

// left · right (+ left2 · right2) for each of several weights, or for one with a second pair.
template <class T>
struct Products {
  TensorMap left, left2, right2;
  int steps, steps2;  // boxes along k
  struct Part {
    TensorMap right;
    Epilogue<T> epilogue;
    unsigned end;  // of its tiles
  } parts[joined_most];
  Plan plan;
};

// The activated product of gate and up: half of a tile's rows are gate's, the others up's of the same columns.
template <class T, class Gate_>
struct Gated {
  using Gate = Gate_;
  TensorMap left, gate, up;
  int steps;
  GatedEpilogue<T> epilogue;
  Plan plan;
};

using Sums = GatedSums<few_rows_most, half_columns>;  // rows of x by rows of the weight

struct Shared {
  alignas(1024) unsigned char stages[stages_bytes];  // the weight's boxes, then those of x
  Sums sums;
  BulkPipeline<most_stages> pipeline;
  MBarrier consumers;  // meet here
};
using Resources = BlockResources<warpgroup + 32, 2, sizeof(Shared), Cards::sm_90a>;
// What wgmma reads behind a tile of few rows lies in the block's memory: x of the stage and the sums follow.
static_assert((most_rows - 8) * line_bytes <= 8 * 8 * line_bytes &&
              (most_rows - 16) * line_bytes <= 4 * 8 * line_bytes + static_cast<int>(sizeof(Sums)) &&
              (most_rows - 24) * line_bytes <= 8 * line_bytes + static_cast<int>(sizeof(Sums)) + 1024);

// ---- which part of the products a tile is ----

template <class T>
__device__ __forceinline__ const typename Products<T>::Part& part_of(const Products<T>& p, unsigned tile, int& first) {
  int index = 0;
  unsigned before = 0;
  while (index + 1 < joined_most && tile >= p.parts[index].end) before = p.parts[index++].end;
  first = static_cast<int>(tile - before) * p.plan.rows;
  return p.parts[index];
}

// Boxes along k of a pair of operands.
template <class T>
__device__ __forceinline__ int steps_of(const Products<T>& p, int pair) {
  return pair == 0 ? p.steps : p.steps2;
}
template <class T, class Gate>
__device__ __forceinline__ int steps_of(const Gated<T, Gate>& p, int pair) {
  return pair == 0 ? p.steps : 0;
}

// A stage, as producer and consumers count them: its place in the ring, its tile, its pair and its first box of that.
struct Walk {
  RingPlace<most_stages> place;
  unsigned tile = blockIdx.x;
  int pair = 0, step = 0;

  template <class P>
  __device__ __forceinline__ int boxes(const P& p) const {
    const int left = steps_of(p, pair) - step;
    return left < p.plan.boxes ? left : p.plan.boxes;
  }
  template <class P>
  __device__ __forceinline__ void advance(const P& p) {
    place.advance(p.plan.stages);
    step += p.plan.boxes;
    if (step < steps_of(p, pair)) return;
    step = 0;
    if (pair == 0 && steps_of(p, 1) > 0) {
      pair = 1;
    } else {
      pair = 0;
      tile += gridDim.x;
    }
  }
};

// Of what is copied first, by the time it is.
template <class T>
__device__ __forceinline__ void prefetch_maps(const Products<T>& p) {
  int first;
  prefetch_map(part_of(p, blockIdx.x, first).right);
  prefetch_map(p.left);
}
template <class T, class Gate>
__device__ __forceinline__ void prefetch_maps(const Gated<T, Gate>& p) {
  prefetch_map(p.gate);
  prefetch_map(p.up);
  prefetch_map(p.left);
}

// So many boxes along k of x.
template <class T>
__device__ __forceinline__ void copy_left(const Products<T>& p, const Walk& at, int boxes, unsigned char* to, int bytes,
                                          MBarrier& full) {
  const TensorMap& map = at.pair == 0 ? p.left : p.left2;
  for (int i = 0; i < boxes; ++i) tensor_copy(to + i * bytes, map, 0, (at.step + i) * block_k, full);
}
template <class T, class Gate>
__device__ __forceinline__ void copy_left(const Gated<T, Gate>& p, const Walk& at, int boxes, unsigned char* to,
                                          int bytes, MBarrier& full) {
  for (int i = 0; i < boxes; ++i) tensor_copy(to + i * bytes, p.left, 0, (at.step + i) * block_k, full);
}

// And of a tile's weight.
template <class T>
__device__ __forceinline__ void copy_right(const Products<T>& p, const Walk& at, int boxes, unsigned char* to,
                                           int bytes, MBarrier& full) {
  int first;
  const auto& part = part_of(p, at.tile, first);
  const TensorMap& map = at.pair == 0 ? part.right : p.right2;
  for (int i = 0; i < boxes; ++i) tensor_copy_at_rest(to + i * bytes, map, first, (at.step + i) * block_k, full);
}
template <class T, class Gate>
__device__ __forceinline__ void copy_right(const Gated<T, Gate>& p, const Walk& at, int boxes, unsigned char* to,
                                           int bytes, MBarrier& full) {
  const int half = p.plan.rows / 2, first = static_cast<int>(at.tile) * half;
  for (int i = 0; i < boxes; ++i) {
    tensor_copy_at_rest(to + i * bytes, p.gate, first, (at.step + i) * block_k, full);
    tensor_copy_at_rest(to + i * bytes + half * line_bytes, p.up, first, (at.step + i) * block_k, full);
  }
}

// ---- what becomes of a tile's sums, by the warpgroup ----

template <class T>
__device__ __forceinline__ void finish_tile(const Products<T>& p, const Sums& sums, unsigned tile) {
  int first;
  const Epilogue<T>& e = part_of(p, tile, first).epilogue;
  const int groups = p.plan.rows / 8;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(e.m) * groups; i += warpgroup)
    finish_eight(e, sums, i / groups, i % groups * 8, 0, first);
}
template <class T, class Gate>
__device__ __forceinline__ void finish_tile(const Gated<T, Gate>& p, const Sums& sums, unsigned tile) {
  const int half = p.plan.rows / 2;
  const int64_t first = int64_t{tile} * half;
  GatedEpilogue<T> e = p.epilogue;
  if (first + half < e.n) e.n = first + half;  // what the tile has
  finish_gated<T, Gate, few_rows_most, half_columns>(e, sums, 0, first);
}

// Where in the sums the tile's row of weights stands.
template <class T>
__device__ __forceinline__ int sums_column(const Products<T>&, int row) {
  return row;
}
template <class T, class Gate>
__device__ __forceinline__ int sums_column(const Gated<T, Gate>& p, int row) {
  const int half = p.plan.rows / 2;
  return row < half ? row : half_columns + row - half;
}

// ---- the two sides of a block ----

// A warp whose lanes count together, so that whoever issues the copies has their operands in the warp's registers.
template <int n, class P>
class Producer {
 public:
  __device__ __forceinline__ Producer(const P& p, Shared& shared) : p_(p), shared_(shared) {}

  // The stages that may be filled before the kernels before have ended, but for x.
  __device__ __forceinline__ void begin() {
    if (!p_.plan.at_rest) return;
    Walk at;
    for (; ahead_ < p_.plan.stages && at.tile < p_.plan.tiles && at.pair == 0; ++ahead_, at.advance(p_)) fill_right(at);
  }
  __device__ __forceinline__ void run() {
    Walk at;
    for (; ahead_ > 0; --ahead_, at.advance(p_)) fill_left(at);
    for (; at.tile < p_.plan.tiles; at.advance(p_)) {
      shared_.pipeline.wait_until_empty(at.place);
      fill_right(at);
      fill_left(at);
    }
  }

 private:
  __device__ __forceinline__ void fill_right(const Walk& at) {
    const int boxes = at.boxes(p_);
    MBarrier& full = shared_.pipeline.full[at.place.stage];
    if (!elect_lane()) return;
    mbarrier_arrive_expect_tx(full, static_cast<unsigned>(boxes * (p_.plan.rows + n) * line_bytes));
    copy_right(p_, at, boxes, stage(at), p_.plan.rows * line_bytes, full);
  }
  __device__ __forceinline__ void fill_left(const Walk& at) {
    if (!elect_lane()) return;
    copy_left(p_, at, at.boxes(p_), stage(at) + p_.plan.boxes * p_.plan.rows * line_bytes, n * line_bytes,
              shared_.pipeline.full[at.place.stage]);
  }
  __device__ __forceinline__ unsigned char* stage(const Walk& at) const {
    return shared_.stages + at.place.stage * p_.plan.stage_bytes(n);
  }

  const P& p_;
  Shared& shared_;
  int ahead_ = 0;  // stages that await x
};

// sums = a tile's rows of weights times the rows of x. `at` moves on to the next tile.
template <class T, int n, class P>
__device__ __forceinline__ void multiply_tile(float (&sums)[n / 2], const P& p, Shared& shared, Walk& at) {
  const Plan& plan = p.plan;
  constexpr int k16_steps = block_k / 16;
  const int box = plan.rows * block_k;
  int before = -1;  // the stage
  for (const unsigned tile = at.tile; at.tile == tile; at.advance(p)) {
    const int boxes = at.boxes(p);
    const T* const first = reinterpret_cast<const T*>(shared.stages + at.place.stage * plan.stage_bytes(n));
    auto right = wgmma_operand<Major::k>(first), left = wgmma_operand<Major::k>(first + plan.boxes * box);
    shared.pipeline.wait_until_full(at.place);
#pragma unroll 1
    for (int i = 0; i < boxes; ++i) {
      wgmma_fence();
      LATHE_UNROLL
      for (int k = 0; k < k16_steps; ++k)
        wgmma_of_rows(plan.rows, sums, right.next_k16(k), left.next_k16(k), before >= 0 || i > 0 || k > 0);
      wgmma_commit();
      wgmma_wait<1>();  // the tensor cores have this box to do meanwhile
      if (i == 0 && before >= 0) shared.pipeline.release(before);
      right = right.next_k16(plan.rows * k16_steps);  // a line of a box is as long as four steps along k
      left = left.next_k16(n * k16_steps);
    }
    before = at.place.stage;
  }
  wgmma_wait<0>(sums);
  shared.pipeline.release(before);
}

template <class T, int n, class P>
__device__ __forceinline__ void consume(const P& p, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x % 32), first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  unsigned parity = 0;
  const auto meet = [&] {
    mbarrier_arrive(shared.consumers);
    mbarrier_wait(shared.consumers, parity);
    parity ^= 1;
  };
  Walk at;
  while (at.tile < p.plan.tiles) {
    const unsigned tile = at.tile;
    float sums[n / 2];
    multiply_tile<T, n>(sums, p, shared, at);
    LATHE_UNROLL
    for (int e = 0; e < n / 2; ++e) {
      const int row = first_row + fragment_row(lane, e % 4), column = e / 4 * 8 + fragment_column(lane, e % 4);
      if (row < p.plan.rows) shared.sums.elements[Sums::offset(column, sums_column(p, row))] = sums[e];
    }
    meet();  // the sums are there
    finish_tile(p, shared.sums, tile);
    meet();  // and have been read
  }
}

template <class T, int n, class P>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    few_rows_kernel(Resources, const __grid_constant__ P p) {
  Shared& shared = *swizzled_shared<Shared>();
  launch_dependents();
  Producer<n, P> produced(p, shared);
  // From a lane, so that the compiler knows that a warp is of one mind: descriptors live in registers of the warp.
  const int warp = __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp == producing_warp) {
    if (elect_lane()) {
      prefetch_maps(p);
      shared.pipeline.init(consuming_warps);
      mbarrier_init(shared.consumers, warpgroup);
      fence_mbarrier_init();
    }
    produced.begin();  // by that lane, for whom the mbarriers are there
  }
  __syncthreads();  // the mbarriers are there for all
  grid_dependency_wait();
  if (warp < consuming_warps) {
    consume<T, n>(p, shared);
  } else {
    produced.run();
  }
}

// ---- host ----

// So many rows of weights to a tile that the multiprocessor with the most has the least to read, where a tile costs as
// much as four rows more. `step`: rows that a tile's must be a multiple of.
template <int products>
Plan plan_for(const int64_t (&columns)[products], int step, int left_rows, bool at_rest) {
  Plan best{};
  int64_t least = 0;
  for (int rows = most_rows; rows >= step; rows -= step) {
    int64_t tiles = 0;
    for (const int64_t n : columns) tiles += (n + rows - 1) / rows;
    const int64_t cost = (tiles + multiprocessors() - 1) / multiprocessors() * (rows + 4);
    if (best.rows != 0 && cost >= least) continue;
    best = {.rows = rows,
            .boxes = most_rows / rows,
            .stages = 0,
            .tiles = static_cast<unsigned>(tiles),
            .at_rest = at_rest};
    least = cost;
  }
  const int fit = stages_bytes / best.stage_bytes(left_rows);
  best.stages = fit < most_stages ? fit : most_stages;
  return best;
}

TensorMapArgs map_args(const ProductMatrix& matrix, int64_t rows, int64_t k, int box_rows) {
  return {.data = matrix.data,
          .rows = rows,
          .columns = k,
          .row_stride = matrix.stride,
          .box_rows = box_rows,
          .box_columns = block_k};
}
bool map_serves(const ProductMatrix& matrix, int64_t rows, int64_t k) {
  return why_no_tensor_map(map_args(matrix, rows, k, 8))[0] == 0;
}
TensorMap map_of(const ProductMatrix& matrix, int64_t rows, int64_t k, int box_rows) {
  return make_tensor_map(map_args(matrix, rows, k, box_rows));
}

bool few_on_hopper(int64_t m, int64_t k) { return m > 0 && m <= few_rows_most && k > 0 && runs_sm_90a(); }

// The rows of x that wgmma multiplies.
constexpr int left_rows_for(int64_t m) { return m <= 8 ? 8 : 16; }

template <class T, class P>
void launch_few_rows(const char* name, int64_t m, const P& p) {
  const unsigned most = static_cast<unsigned>(multiprocessors());
  const dim3 grid(p.plan.tiles < most ? p.plan.tiles : most);
  left_rows_for(m) == 8 ? launch_dependent(name, grid, few_rows_kernel<T, 8, P>, p)
                        : launch_dependent(name, grid, few_rows_kernel<T, 16, P>, p);
}

template <class T>
void start(const ProductArgs& args) {
  const int left_rows = left_rows_for(args.m);
  const int64_t columns[] = {args.n};
  Products<T> p{};
  p.plan = plan_for(columns, 8, left_rows, args.right_at_rest);
  p.left = map_of(args.left, args.m, args.k, left_rows);
  p.steps = stages_along(args.k);
  p.parts[0] = {map_of(args.right, args.n, args.k, p.plan.rows), epilogue_of<T>(args), p.plan.tiles};
  if (args.k2 > 0) {
    p.left2 = map_of(args.left2, args.m, args.k2, left_rows);
    p.right2 = map_of(args.right2, args.n, args.k2, p.plan.rows);
    p.steps2 = stages_along(args.k2);
  }
  launch_few_rows<T>("few_rows", args.m, p);
}

template <class T>
void start(const JoinedProductArgs& args) {
  const int left_rows = left_rows_for(args.m);
  int64_t columns[joined_most] = {};
  for (int i = 0; i < args.count; ++i) columns[i] = args.parts[i].n;
  Products<T> p{};
  p.plan = plan_for(columns, 8, left_rows, args.right_at_rest);
  p.left = map_of(args.left, args.m, args.k, left_rows);
  p.steps = stages_along(args.k);
  unsigned tiles = 0;
  for (int i = 0; i < args.count; ++i) {
    const JoinedProductArgs::Part& part = args.parts[i];
    tiles += static_cast<unsigned>((part.n + p.plan.rows - 1) / p.plan.rows);
    p.parts[i] = {map_of(part.right, part.n, args.k, p.plan.rows),
                  {.m = args.m, .n = part.n, .scale = 1.0f, .bias = part.bias, .residual = {}, .out = part.out},
                  tiles};
  }
  launch_few_rows<T>("few_rows_joined", args.m, p);
}

template <class T, class Gate>
void start(const GatedProductArgs& args) {
  const int left_rows = left_rows_for(args.m);
  const int64_t columns[] = {2 * args.n};
  Gated<T, Gate> p{};
  p.plan = plan_for(columns, 16, left_rows, args.right_at_rest);
  p.plan.tiles = static_cast<unsigned>((args.n + p.plan.rows / 2 - 1) / (p.plan.rows / 2));
  p.left = map_of(args.left, args.m, args.k, left_rows);
  p.gate = map_of(args.gate, args.n, args.k, p.plan.rows / 2);
  p.up = map_of(args.up, args.n, args.k, p.plan.rows / 2);
  p.steps = stages_along(args.k);
  p.epilogue = gated_epilogue<T>(args.m, args.n, args.out);
  launch_few_rows<T>("few_rows_gated", args.m, p);
}
template <class T>
void start(const GatedProductArgs& args) {
  args.activation == Activation::silu ? start<T, Silu>(args) : start<T, GeluTanh>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool few_rows_by_wgmma(const ProductArgs& args) {
  if (args.layout != ProductLayout::rows_rows || !few_on_hopper(args.m, args.k) ||
      !map_serves(args.left, args.m, args.k) || !map_serves(args.right, args.n, args.k) ||
      (args.k2 > 0 && (!map_serves(args.left2, args.m, args.k2) || !map_serves(args.right2, args.n, args.k2))))
    return false;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
  return true;
}
template bool few_rows_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

template <DeviceKind>
bool joined_by_wgmma(const JoinedProductArgs& args) {
  if (!few_on_hopper(args.m, args.k) || args.count == 0 || !map_serves(args.left, args.m, args.k)) return false;
  for (int i = 0; i < args.count; ++i)
    if (!map_serves(args.parts[i].right, args.parts[i].n, args.k)) return false;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
  return true;
}
template bool joined_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(const JoinedProductArgs&);

template <DeviceKind>
bool gated_by_wgmma(const GatedProductArgs& args) {
  if (!few_on_hopper(args.m, args.k) || !map_serves(args.left, args.m, args.k) ||
      !map_serves(args.gate, args.n, args.k) || !map_serves(args.up, args.n, args.k))
    return false;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
  return true;
}
template bool gated_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedProductArgs&);

}  // namespace lathe::kernels
