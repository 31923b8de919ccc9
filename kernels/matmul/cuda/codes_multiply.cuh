// The warps of a block that multiply decoded weights by rows of x (codes_block.cuh).
#pragma once

#include "kernels/matmul/cuda/codes_block.cuh"
#include "kernels/matmul/cuda/operand.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Which rows of x a block has: neighbours, or those that are listed.
struct RowsFrom {
  int64_t first;
  static constexpr bool neighbours = true;
  __device__ __forceinline__ int64_t operator()(int row) const { return first + row; }
};
struct ListedRows {
  const int32_t* rows;
  static constexpr bool neighbours = false;
  __device__ __forceinline__ int64_t operator()(int row) const { return rows[row]; }
};

// The rows of x on their way into the rounds: a thread has a vector of each stage in one row, or in two. Rows that
// there are not are zeros from the beginning.
template <class T, int weights>
class CodesLeft {
  using Tile = CodesLeftTile<T>;
  static constexpr int parts = CodesBlock<weights>::parts,
                       rows_at_once = CodesBlock<weights>::multiplying / Tile::vectors;
  static_assert(rows_at_once % 8 == 0, "a thread's vectors change places alike");
  using Round = Tile[parts];

 public:
  // x's rows are aligned, less than 2^27 elements apart, and k is a multiple of eight.
  template <class Rows>
  __device__ __forceinline__ CodesLeft(const DenseOperand<T>& x, const Rows& which, int rows, Round* tiles)
      : tiles_(tiles), stride_(static_cast<int>(x.stride) * rows_at_once) {
    static_assert(Rows::neighbours || codes_rows <= rows_at_once, "a thread has one row");
    const int row = static_cast<int>(threadIdx.x) / Tile::vectors,
              column = static_cast<int>(threadIdx.x) % Tile::vectors * vector_elements<T>;
    place_ = Tile::offset(row, column);
    rows_ = rows - row;
    next_ = x.data + (rows_ > 0 ? which(row) * x.stride : 0) + column;
    for (int round = 0; round < left_rounds; ++round)
      each_vector(round, [&](T* to, int row_after, int) {
        if (rows_ <= row_after) store_vector<uint4>(to, uint4{});
      });
  }
  // Starts the copies of the next round, from whose beginning on there are so many columns.
  __device__ __forceinline__ void copy(int place, int columns) {
    columns -= static_cast<int>(threadIdx.x) % Tile::vectors * vector_elements<T>;
    each_vector(place, [&](T* to, int row_after, int part) {
      if (rows_ > row_after)
        cp_async_16(to, next_ + part * block_k + (row_after > 0 ? stride_ : 0), columns > part * block_k ? 16 : 0);
    });
    next_ += parts * block_k;
  }

 private:
  template <class Body>
  __device__ __forceinline__ void each_vector(int round, Body body) const {
    static_assert(codes_rows <= 2 * rows_at_once);
    LATHE_UNROLL
    for (int row = 0; row < codes_rows; row += rows_at_once) {
      LATHE_UNROLL
      for (int part = 0; part < parts; ++part)
        body(tiles_[round][part].elements + place_ + row * Tile::pitch, row, part);
    }
  }

  Round* tiles_;
  const T* next_;
  int stride_, rows_, place_;  // rows_: from this thread's on
};

// A warp's operands while it multiplies: of the weight 32 units of k in hand and 32 on their way; of eight rows of x
// the same, of sixteen half as many.
template <class T, int eights>
class CodesOperands {
  static constexpr BPair pair = eights == 1 ? BPair::k : BPair::columns;
  using Left = CodesLeftTile<T>;

 public:
  static constexpr int steps = block_k / 16;  // of a stage

  __device__ __forceinline__ CodesOperands(int first_column) : reader_(0), first_column_(first_column) {}
  // Of a stage: the weights of this step and the next, an even one.
  __device__ __forceinline__ void load_weights(const DecodedStage& decoded, int step) {
    LATHE_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint4 four = load_vector<uint4>(&decoded.fragments[first_column_ / 16][step + i][threadIdx.x % 32]);
      weights_[step / 2][i] = {{four.x, four.y, four.z, four.w}};
    }
  }
  // Of a stage: the rows of this step, and where there are eight of the next, too.
  static constexpr int row_steps = 3 - eights;
  __device__ __forceinline__ void load_rows(const Left& left, int step) {
    const int place = step / row_steps % 2;
    reader_.load(rows_[place][0], rows_[place][1], left, 0, 16 * step);
  }
  __device__ __forceinline__ void multiply(CodesSums& sums, int step) const {
    const int half = step / 2 % 2;
    if constexpr (eights == 1) {
      mma(sums.at[0], weights_[half][step % 2], rows_[half][step % 2]);
    } else {
      mma(sums.at[0], weights_[half][step % 2], rows_[step % 2][0]);
      mma(sums.at[1], weights_[half][step % 2], rows_[step % 2][1]);
    }
  }

 private:
  const BReader<Left, Major::k, pair> reader_;
  const int first_column_;
  AFragment<T> weights_[2][2];
  BFragment<T> rows_[2][2];
};

// sums += a round's first `count` stages. Weights come two steps before they are multiplied, sixteen rows of x one.
template <int eights, class T, int parts>
__device__ __forceinline__ void multiply_round(CodesSums& sums, const DecodedStage (&decoded)[parts],
                                               const CodesLeftTile<T> (&left)[parts], int first_column, int count) {
  using Operands = CodesOperands<T, eights>;
  constexpr int steps = Operands::steps, row_steps = Operands::row_steps;
  Operands operands(first_column);
  const auto load_weights = [&](int step) {
    if (step % 2 == 0 && step < steps * parts) operands.load_weights(decoded[step / steps], step % steps);
  };
  const auto load_rows = [&](int step) {
    if (step % row_steps == 0 && step < steps * parts) operands.load_rows(left[step / steps], step % steps);
  };
  if (count < parts) {  // the last
#pragma unroll 1
    for (int stage = 0; stage < count; ++stage) {
      LATHE_UNROLL
      for (int step = 0; step < steps; ++step) {
        if (step % 2 == 0) operands.load_weights(decoded[stage], step);
        if (step % row_steps == 0) operands.load_rows(left[stage], step);
        operands.multiply(sums, step);
      }
    }
    return;
  }
  load_weights(0);
  load_rows(0);
  LATHE_UNROLL
  for (int step = 0; step < steps * parts; ++step) {
    load_weights(step + 2);
    load_rows(step + row_steps);
    operands.multiply(sums, step % steps);
  }
}

// sums += x · weightᵀ
template <int eights, class T, class Right, int weights>
__device__ __forceinline__ void multiply_decoded(CodesSums& sums, CodesLeft<T, weights>& left, int k,
                                                 const CodesMemory<T, Right, weights>& memory) {
  using Block = CodesBlock<weights>;
  constexpr int round_k = Block::parts * block_k;
  int place = 0, decoded = 0;
  while (true) {  // k: what is left of it
    if (k > 2 * round_k) left.copy(place == 0 ? 2 : place - 1, k - 2 * round_k);
    cp_async_commit();
    multiply_round<eights, T>(sums, memory.decoded[decoded][Block::weight()], memory.left[place], Block::first_column(),
                              k < round_k ? stages_along(k) : Block::parts);
    k -= round_k;
    if (k <= 0) break;
    decoded ^= 1;
    place = place + 1 == left_rounds ? 0 : place + 1;
    cp_async_wait<1>();
    end_round();  // the next round is decoded, and its rows of x are there for all
  }
}

// sums += the block's rows of x, `here` of them, · weightᵀ
template <class T, class Right, int weights, class Rows>
__device__ __forceinline__ void multiply_codes(CodesSums& sums, const DenseOperand<T>& x, const Rows& which, int here,
                                               int64_t k, CodesMemory<T, Right, weights>& memory) {
  constexpr int round_k = CodesBlock<weights>::parts * block_k;
  const int all = static_cast<int>(k);
  CodesLeft<T, weights> left(x, which, here, memory.left);
  LATHE_UNROLL
  for (int round = 0; round < 2; ++round) {
    if (round * round_k < all) left.copy(round, all - round * round_k);
    cp_async_commit();
  }
  end_round();  // tables
  end_round();  // codes
  cp_async_wait<1>();
  end_round();  // the first round is decoded, and its rows of x are there for all
  here > 8 ? multiply_decoded<2>(sums, left, all, memory) : multiply_decoded<1>(sums, left, all, memory);
}

// Calls body(row, column, sum) for every sum of a lane.
template <class Body>
__device__ __forceinline__ void for_each(const CodesSums& sums, int first_column, Body body) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  LATHE_UNROLL
  for (int i = 0; i < codes_rows / 8; ++i) {
    LATHE_UNROLL
    for (int e = 0; e < 4; ++e)
      body(8 * i + fragment_column(lane, e), first_column + fragment_row(lane, e), sums.at[i][e]);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
