// A few rows of f32 times the rows of a dense weight, with the bits of f32.cu (few_rows_f32.cuh). A product of one row
// is done when its weight has come: what bounds it is how much of that is on its way, and where it is small enough to
// be on its way as a whole, the chain of 512 multiply-adds that wait for each other, 1.2 µs.
//
// A warp has 32 slots, a lane each: 32 columns of a chain, or 16 columns of two. By cp.async it fills stages of 32
// along k for itself, alone: the weights and the rows' part that they meet. Nothing of a step comes from further away
// than shared memory.
#include "kernels/cuda/ptx/element_copy.h"
#include "kernels/cuda/tile/shared_tile.cuh"
#include "kernels/matmul/cuda/few_rows_f32.cuh"
#include "kernels/matmul/cuda/quantized.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int step_k = 32, vectors = step_k / 4, chain_steps = f32_chain / step_k;

// How a block shares the work: rows of the left operand at most, columns, warps.
template <int rows_, int columns_, int warps_>
struct Shape {
  static constexpr int rows = rows_, columns = columns_, warps = warps_, threads = warps * 32;
  static constexpr int warp_chains = 32 / columns, chains = warps * warp_chains;  // at a time
  using Weights = SwizzledTile<float, 32, step_k>;
  struct Stage {
    Weights weights;                                    // a row for each slot
    alignas(16) float left[warp_chains][rows][step_k];  // of each chain's k
  };
  // A single warp has its chains on their way as a whole, where there is room; more warps share what lets two blocks
  // onto a multiprocessor.
  static constexpr int fitting = (80 << 10) / (warps * static_cast<int>(sizeof(Stage)));
  static constexpr int stages = fitting < chain_steps ? fitting : chain_steps;
  struct Memory {
    Stage stages[warps][Shape::stages];
    float sums[chains][rows][columns];
  };
  using Resources = BlockResources<threads, rows == 1 ? 2 : 1, static_cast<int>(sizeof(Memory))>;
  static_assert(stages >= 3);
  static_assert(row_order_passes<Weights> == 1);
  static_assert(bank_passes(16, [](int lane) { return Weights::offset(lane, 0) * 4; }) == 1);
};

struct Weight {
  const float* data;  // [n, k], rows at multiples of 16 bytes
  int64_t stride;
};

// Where a warp's first chain is along k, step after step of all its chains.
template <class Shape>
class Steps {
 public:
  __device__ __forceinline__ Steps() : k_(int64_t{threadIdx.x / 32} * Shape::warp_chains * f32_chain) {}
  __device__ __forceinline__ int64_t k() const { return k_; }
  __device__ __forceinline__ void advance() {
    k_ += step_k;
    if (++of_chain_ < chain_steps) return;
    of_chain_ = 0;
    k_ += (Shape::chains - 1) * f32_chain;  // the next of its chains
  }

 private:
  int64_t k_;
  int of_chain_ = 0;
};

// A warp's stages: of all its chains, one after the other.
template <class Shape>
class Slots {
  using Stage = typename Shape::Stage;

 public:
  // `left_aligned`: rows of the left operand are at multiples of 16 bytes.
  __device__ __forceinline__ Slots(const FewRowsF32Call& p, const Weight& weight, bool left_aligned,
                                   Stage (&stages)[Shape::stages], int64_t first_column)
      : p_(p),
        weight_(weight),
        left_aligned_(left_aligned),
        whole_columns_(first_column + Shape::columns <= p.epilogue.n),
        stages_(stages),
        first_column_(first_column),
        from_(weight.data + (first_column + lane() / vectors) * weight.stride + lane() % vectors * 4) {
    for (int s = 0; s + 1 < Shape::stages; ++s) fill();
  }

  // sums += the lane's products of the next step.
  __device__ __forceinline__ void add_step(ChainSums<Shape::rows>& sums) {
    cp_async_wait<Shape::stages - 2>();
    __syncwarp();  // the stage is there for all lanes, and all are done with the one before
    fill();
    const int64_t left = p_.k - reading_step_.k() - lane() / Shape::columns * f32_chain;
    reading_step_.advance();
    const Stage& stage = stages_[reading_];
    reading_ = reading_ + 1 == Shape::stages ? 0 : reading_ + 1;
    if (left >= step_k) {
      add_whole(sums, stage);
    } else if (left > 0) {
      add_part(sums, stage, static_cast<int>(left));
    }
  }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }

  // The next stage, an empty group of copies past the last one.
  __device__ __forceinline__ void fill() {
    Stage& stage = stages_[filling_];
    LATHE_UNROLL
    for (int c = 0; c < Shape::warp_chains; ++c) {
      const int64_t k = filling_step_.k() + c * f32_chain;
      if (k >= p_.k) break;
      const int there = p_.k - k < step_k ? static_cast<int>(p_.k - k) : step_k;
      there == step_k&& whole_columns_ ? fill_weights(stage, c, k) : fill_part(stage, c, k, there);
      left_aligned_ ? fill_left<4>(stage, c, k, there) : fill_left<1>(stage, c, k, there);
    }
    cp_async_commit();
    filling_step_.advance();
    filling_ = filling_ + 1 == Shape::stages ? 0 : filling_ + 1;
  }

  // Of the weights of chain c of the warp a lane copies four neighbours of every `rows_at_once`-th row.
  static constexpr int rows_at_once = 32 / vectors;
  static __device__ __forceinline__ float* weights_of(Stage& stage, int c, int i) {
    return stage.weights.elements +
           Shape::Weights::offset(c * Shape::columns + i * rows_at_once + lane() / vectors, lane() % vectors * 4);
  }
  __device__ __forceinline__ void fill_weights(Stage& stage, int c, int64_t k) const {
    const float* from = from_ + k;
    LATHE_UNROLL
    for (int i = 0; i < Shape::columns / rows_at_once; ++i, from += weight_.stride * rows_at_once)
      cp_async_16(weights_of(stage, c, i), from);
  }
  // What is beyond the weight's last row or k is zero.
  __device__ __forceinline__ void fill_part(Stage& stage, int c, int64_t k, int there) const {
    const int here = there - lane() % vectors * 4, bytes = here < 0 ? 0 : here < 4 ? here * 4 : 16;
#pragma unroll 1
    for (int i = 0; i < Shape::columns / rows_at_once; ++i) {
      const bool in = first_column_ + i * rows_at_once + lane() / vectors < p_.epilogue.n && bytes > 0;
      cp_async_16(weights_of(stage, c, i), in ? from_ + k + i * rows_at_once * weight_.stride : weight_.data,
                  in ? bytes : 0);
    }
  }

  // The rows' part, `width` neighbours at a time.
  template <int width>
  __device__ __forceinline__ void fill_left(Stage& stage, int c, int64_t k, int there) const {
    constexpr int of_row = step_k / width, copies = Shape::rows * of_row;
    LATHE_UNROLL
    for (int i = 0; i < (copies + 31) / 32; ++i) {
      const int index = i * 32 + lane(), row = index / of_row, element = index % of_row * width;
      if (index >= copies || row >= p_.epilogue.m || element >= there) continue;
      float* const to = &stage.left[c][row][element];
      const float* const from = p_.left.data + row * p_.left.stride + k + element;
      if constexpr (width == 4) {
        cp_async_16(to, from, there - element < 4 ? (there - element) * 4 : 16);
      } else {
        cp_async_4(to, from);
      }
    }
  }

  __device__ __forceinline__ void add_whole(ChainSums<Shape::rows>& sums, const Stage& stage) const {
    float weights[step_k];
    LATHE_UNROLL
    for (int i = 0; i < step_k; i += 4) {
      const float4 four = load_vector<float4>(stage.weights.elements + Shape::Weights::offset(lane(), i));
      weights[i] = four.x, weights[i + 1] = four.y, weights[i + 2] = four.z, weights[i + 3] = four.w;
    }
    LATHE_UNROLL
    for (int r = 0; r < Shape::rows; ++r) {
      if (Shape::rows > 1 && r >= p_.epilogue.m) break;
      const float* const from = stage.left[lane() / Shape::columns][r];
      LATHE_UNROLL
      for (int i = 0; i < step_k; i += 4) {
        const float4 four = load_vector<float4>(from + i);
        sums.at[r] = fmaf(four.x, weights[i], sums.at[r]);
        sums.at[r] = fmaf(four.y, weights[i + 1], sums.at[r]);
        sums.at[r] = fmaf(four.z, weights[i + 2], sums.at[r]);
        sums.at[r] = fmaf(four.w, weights[i + 3], sums.at[r]);
      }
    }
  }

  __device__ __forceinline__ void add_part(ChainSums<Shape::rows>& sums, const Stage& stage, int count) const {
#pragma unroll 1
    for (int k = 0; k < count; ++k) {
      const float weight = stage.weights.elements[Shape::Weights::offset(lane(), k)];
      LATHE_UNROLL
      for (int r = 0; r < Shape::rows; ++r)
        if (r < p_.epilogue.m) sums.at[r] = fmaf(stage.left[lane() / Shape::columns][r][k], weight, sums.at[r]);
    }
  }

  const FewRowsF32Call& p_;
  const Weight& weight_;
  const bool left_aligned_, whole_columns_;
  Stage (&stages_)[Shape::stages];
  const int64_t first_column_;
  const float* const from_;  // the lane's first weights, at k = 0
  Steps<Shape> filling_step_, reading_step_;
  int filling_ = 0, reading_ = 0;  // stages
};

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    few_rows_dense_f32_kernel(Resources, FewRowsF32Call p, Weight weight, bool left_aligned) {
  auto& memory = *dynamic_shared<typename Shape::Memory>();
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int slot = warp * Shape::warp_chains + lane / Shape::columns;  // of the chains at a time
  const int64_t first_column = int64_t{blockIdx.x} * Shape::columns, m = p.epilogue.m;
  const int64_t chains = (p.k + f32_chain - 1) / f32_chain;
  Slots<Shape> slots(p, weight, left_aligned, memory.stages[warp], first_column);
  ChainTotals<Shape::rows, Shape::columns, Shape::threads> totals;
  for (int64_t first = 0; first < chains; first += Shape::chains) {
    ChainSums<Shape::rows> sums;
    const int64_t warp_begin = (first + warp * Shape::warp_chains) * f32_chain;  // the longest chain of the warp
    const int64_t k = p.k - warp_begin < f32_chain ? p.k - warp_begin : f32_chain;
#pragma unroll 1
    for (int64_t done = 0; done < k; done += step_k) slots.add_step(sums);
    if (first + slot == chains - 1) add_second_pair(sums, p, first_column + lane % Shape::columns);
    if (first + slot < chains) {
      LATHE_UNROLL
      for (int r = 0; r < Shape::rows; ++r)
        if (r < m) memory.sums[slot][r][lane % Shape::columns] = sums.at[r];
    }
    __syncthreads();  // the chains' sums are there
    totals.add(memory.sums, first, chains - first < Shape::chains ? static_cast<int>(chains - first) : Shape::chains,
               m);
    __syncthreads();  // they have been read
  }
  cp_async_wait<0>();
  totals.finish(p.epilogue, first_column);
}

template <int rows, int columns>
void start(const ProductArgs& args) {
  const Weight weight{static_cast<const float*>(args.right.data), args.right.stride};
  const bool left_aligned = rows_aligned(static_cast<const float*>(args.left.data), args.left.stride);
  const dim3 grid(static_cast<unsigned>((args.n + columns - 1) / columns));
  const auto run = [&]<class Shape>(Shape) {
    launch("few_rows_f32", grid, few_rows_dense_f32_kernel<Shape>, few_rows_f32_call(args), weight, left_aligned);
  };
  args.k <= Shape<rows, columns, 1>::chains* f32_chain ? run(Shape<rows, columns, 1>{})
                                                       : run(Shape<rows, columns, 4>{});
}

void start(const ProductArgs& args) {
  if (args.m > 4) return start<16, 32>(args);
  // Half as many columns where all of them would leave multiprocessors without any.
  const bool wide = args.n > int64_t{16} * multiprocessors();
  if (args.m > 1) return wide ? start<4, 32>(args) : start<4, 16>(args);
  wide ? start<1, 32>(args) : start<1, 16>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool few_rows_f32(const ProductArgs& args) {
  if (args.layout != ProductLayout::rows_rows || args.m > most_fused_rows || args.k == 0) return false;
  if (!rows_aligned(static_cast<const float*>(args.right.data), args.right.stride)) return false;
  LATHE_CUDA_NAMESPACE::start(args);
  return true;
}
template bool few_rows_f32<DeviceKind::LATHE_CUDA_NAMESPACE>(const ProductArgs&);

}  // namespace lathe::kernels
