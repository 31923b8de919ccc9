// dx += dropout(dt·A): bound by memory, which reads and writes dx, and nearly by instructions (some 20 an element, ten
// of which are Philox's).
//
// A warp has 32 columns, for which it keeps A in registers, and walks down rows, sixteen at a time. The columns of its
// products are dealt out so that a lane's sums of a row are eight neighbours: of the fragment of columns 8 j … of a
// product (fragment.cuh), column 2 t + i is column 8 t + 2 j + i of the warp's.
#include "kernels/lora_dropout/bodies.h"

#include "kernels/cuda/launch.h"
#include "kernels/dropout/mask.cuh"
#include "kernels/lora_dropout/pack_eight.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int expand_warps = 4, warp_columns = 32, block_rows = 64;
constexpr int fragments = warp_columns / 8;

struct ExpandArgs {
  Matrix grad_x;
  ConstMatrix dt, a;
  int64_t columns;
  int rank;
  MaskArgs mask;
};

// Of a lane's two rows of a tile: dt, and what lies in dx.
template <class T, int units>
struct RowTile {
  AFragment<T> dt[units];
  GroupBits<T> base[2];
};

template <class T, int units>
class Expand {
 public:
  // The lane's eight columns from `column` on are there.
  __device__ __forceinline__ Expand(const ExpandArgs& args, int64_t column, bool here)
      : args_(args),
        lane_(static_cast<int>(threadIdx.x % 32)),
        column_(static_cast<int>(column) + lane_ % 4 * 8),
        here_(here) {
    load_a(column + lane_ / 8 * 8);
  }

  __device__ __forceinline__ void load(RowTile<T, units>& tile, int64_t row, int rows) const {
    LATHE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int own = lane_ / 4 + 8 * h;
      const bool has_row = own < rows;
      if (has_row && here_) tile.base[h] = load_bits(row_of<T>(args_.grad_x, row + own) + column_);
      LATHE_UNROLL
      for (int u = 0; u < units; ++u) {
        LATHE_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int k = 16 * u + 8 * half;
          tile.dt[u].registers[2 * half + h] =
              has_row && k < args_.rank ? load_vector<uint32_t>(row_of<T>(args_.dt, row + own) + k + lane_ % 4 * 2)
                                        : 0u;
        }
      }
    }
  }

  // mask_rows: of the tile's rows.
  __device__ __forceinline__ void add(const RowTile<T, units>& tile, int64_t row, int rows,
                                      const MaskRow* mask_rows) const {
    Accumulator<16, warp_columns> sums;
    LATHE_UNROLL
    for (int u = 0; u < units; ++u) {
      LATHE_UNROLL
      for (int j = 0; j < fragments; ++j) mma(sums.at[0][j], tile.dt[u], a_[u][j]);
    }
    LATHE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int own = lane_ / 4 + 8 * h;
      if (own >= rows || !here_) continue;
      float values[8];
      LATHE_UNROLL
      for (int i = 0; i < 8; ++i) values[i] = sums.at[0][i / 2][2 * h + i % 2];
      round(values);
      drop_eight(values, args_.mask, mask_rows[own], static_cast<uint32_t>(column_));
      round(values);
      LATHE_UNROLL
      for (int i = 0; i < 8; ++i) values[i] = to_float(tile.base[h].elements[i]) + values[i];
      store_bits(row_of<T>(args_.grad_x, row + own) + column_, pack_eight<T>(values));
    }
  }

 private:
  static __device__ __forceinline__ void round(float (&values)[8]) {
    const GroupBits<T> bits = pack_eight<T>(values);
    LATHE_UNROLL
    for (int i = 0; i < 8; ++i) values[i] = to_float(bits.elements[i]);
  }

  // A lane's columns of B are neighbours of one parity in the eight from `eight` on, and its rows are pairs of ranks.
  __device__ __forceinline__ void load_a(int64_t eight) {
    const bool odd = lane_ / 4 % 2 != 0, there = eight < args_.columns;
    LATHE_UNROLL
    for (int u = 0; u < units; ++u) {
      LATHE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int k = 16 * u + 8 * half;
        uint4 low{}, high{};
        if (there && k < args_.rank) {
          const int64_t rank = k + lane_ % 4 * 2;
          low = load_vector<uint4>(row_of<T>(args_.a, rank) + eight);
          high = load_vector<uint4>(row_of<T>(args_.a, rank + 1) + eight);
        }
        a_[u][0].registers[half] = of_parity(low.x, high.x, odd);
        a_[u][1].registers[half] = of_parity(low.y, high.y, odd);
        a_[u][2].registers[half] = of_parity(low.z, high.z, odd);
        a_[u][3].registers[half] = of_parity(low.w, high.w, odd);
      }
    }
  }
  static __device__ __forceinline__ uint32_t of_parity(uint32_t low, uint32_t high, bool odd) {
    return odd ? low >> 16 | (high & 0xffff0000u) : (low & 0xffffu) | high << 16;
  }

  const ExpandArgs& args_;
  int lane_;
  int column_;  // in 64 bits, nvcc 13.0 stores four times four bytes for sixteen
  bool here_;
  BFragment<T> a_[units][fragments];
};

struct MaskRows {
  MaskRow at[block_rows];
};

template <class T, int units>
__global__ void __launch_bounds__(expand_warps * 32, units == 1 ? 6 : 4)
    expand_kernel(ExpandArgs args, SequenceBounds bounds, SampleNumbers samples) {
  const int64_t first = bounds.at[0] + int64_t{blockIdx.y} * block_rows, left = bounds.at[bounds.count] - first;
  const int rows = left < block_rows ? static_cast<int>(left) : block_rows;
  MaskRow* const mask_rows = block_shared<MaskRows>().at;
  static_assert(block_rows <= expand_warps * 32);
  if (static_cast<int>(threadIdx.x) < rows)
    mask_rows[threadIdx.x] = mask_row_of(bounds, samples, first + static_cast<int>(threadIdx.x), added_step(args.mask));
  __syncthreads();  // all rows are there
  const int64_t column = (int64_t{blockIdx.x} * expand_warps + threadIdx.x / 32) * warp_columns;
  const Expand<T, units> expand(args, column, column + threadIdx.x % 4 * 8 < args.columns);
  RowTile<T, units> tile;
  expand.load(tile, first, rows);
  for (int row = 0; row < rows; row += 16) {
    const RowTile<T, units> here = tile;
    if (row + 16 < rows) expand.load(tile, first + row + 16, rows - row - 16);  // on its way meanwhile
    expand.add(here, first + row, rows - row, mask_rows + row);
  }
}

template <class T, int units>
void start(const DroppedExpandArgs& from) {
  const ExpandArgs args{from.grad_x, from.dt, from.a, from.columns, static_cast<int>(from.rank), mask_args(from.mask)};
  constexpr int block_columns = expand_warps * warp_columns;
  for_each_launch_of_samples(
      from.cu_seqlens, from.sample_numbers, from.sequences,
      [&](const SequenceBounds& bounds, const SampleNumbers& samples) {
        const int rows = bounds.at[bounds.count] - bounds.at[0];
        if (rows == 0) return;
        const dim3 grid(static_cast<unsigned>((from.columns + block_columns - 1) / block_columns),
                        static_cast<unsigned>((rows + block_rows - 1) / block_rows));
        launch({.name = "dropped_input_gradient", .grid = grid, .block = dim3(expand_warps * 32)},
               expand_kernel<T, units>, args, bounds, samples);
      });
}

template <class T>
void start(const DroppedExpandArgs& args) {
  args.rank <= rank_unit ? start<T, 1>(args) : start<T, units_of_one_term>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void dropped_input_gradient(const DroppedExpandArgs& args) {
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void dropped_input_gradient<DeviceKind::LATHE_CUDA_NAMESPACE>(const DroppedExpandArgs&);

}  // namespace lathe::kernels
