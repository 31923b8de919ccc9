// A few rows times weights in codes, which are read once. Some warps decode and others multiply: a warp that did both
// waited for each in turn, and for its copies (346 cycles for 64 units of k on an H200, where the products that wait
// for each other take 130). Sums are added in the very steps of mainloop.cuh: the bits are those of the product with
// the dequantised weight.
//
// That order is one chain along k, in which a step of sixteen waits for the one before: 5 µs at K = 4096, however fast
// the memory is (256 steps of some 33 cycles each, reckoned, not timed). The chain sets the pace, and a warp that
// multiplies does nothing else that could wait: decoded weights lie in shared memory as the fragments that it wants, in
// two places, of which one is being filled. The weight is mma's left operand, 16 of its columns of the product, and up
// to eight rows of x its right one; the other eight have a chain of their own beside it.
//
// A block has 32 columns of a weight. Its two teams of 128 threads decode two stages of 64 units of k each, in rounds:
// of one weight four stages in a row, of gate and up two of each. A barrier ends a round: a warp that multiplies comes
// to it with a product under way.
//
// A block has sixteen rows of x. Those with the next sixteen run beside it and find its codes in the last cache.
// On paper, of Q4_0 on an H100: a block's instructions let a multiprocessor decode 20 weights a cycle; dequantised into
// workspace and read from there they come at 3.2, which four blocks that decode the same codes still pass, at 5.
//
// How codes lie and become numbers is the business of a Right, an object of each thread that decodes (TeamThread):
//   Codes                  the weight as a kernel's argument
//   rounds, Memory         of how many rounds codes are in hand or on their way, and where (shared): codes[rounds]
//   Right(codes, memory, thread, first_column, columns, k)   of a block's 32 columns, of so many that there are
//   prefetch()             asks for their beginnings
//   codes_of_team()        the place of its team's stages in the first round's codes
//   copy(place, count)     starts the copies of its team's next stages to there, of so many that there are
//   begin_tables()         what decoding needs beside them; a barrier follows
//   begin()                what needs that; a barrier follows
//   decode(weights, step, place, stage)   this thread's weights of a step, which is one of the stages whose codes are
//                          there, rounded to T; its team's steps in order
//   advance(round)         after the round's decode()
#pragma once

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/operand.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int codes_rows = 16, codes_columns = 32;  // of a block
inline constexpr int teams = 2, team_threads = 128, team_stages = 2;
inline constexpr int codes_blocks = 2;  // that a multiprocessor of sm_90 holds at once; others have less shared memory
template <class T>
using CodesLeftTile = OperandTile<T, codes_rows, Major::k>;
template <class T>
using CodesRightTile = OperandTile<T, codes_columns, Major::k>;

// The threads of a block, which has 32 columns of so many weights: first those that multiply, a warp for 16 columns of
// a weight, then the teams.
template <int weights>
struct CodesBlock {
  static constexpr int weight_teams = teams / weights, parts = weight_teams * team_stages;  // parts: stages of a round
  static constexpr int multiplying = 2 * weights * 32, threads = multiplying + teams * team_threads;
  static __device__ __forceinline__ bool multiplies() { return threadIdx.x < multiplying; }
  // Of a warp that multiplies.
  static __device__ __forceinline__ int weight() { return static_cast<int>(threadIdx.x) / 64; }
  static __device__ __forceinline__ int first_column() { return static_cast<int>(threadIdx.x) / 32 % 2 * 16; }
};

// A thread that decodes: its team has two neighbours of the stages of each round of a weight, its warp 16 columns and
// 32 units of k of a stage, itself what a lane has of mma's left operand: of two columns, eight apart, of every eight
// along k the pair of its quarter.
struct TeamThread {
  int weight, team, thread;  // the team of the weight's, the thread of the team

  template <int weights>
  static __device__ __forceinline__ TeamThread of_block() {
    using Block = CodesBlock<weights>;
    const int index = static_cast<int>(threadIdx.x) - Block::multiplying, team = index / team_threads;
    return {team / Block::weight_teams, team % Block::weight_teams, index % team_threads};
  }
  __device__ __forceinline__ int column() const { return thread / 32 % 2 * 16 + thread % 32 / 4; }  // and column() + 8
  __device__ __forceinline__ int half() const { return thread / 64; }                               // of the stage
  __device__ __forceinline__ int quarter() const { return thread % 4; }
  __device__ __forceinline__ int first_stage() const { return team * team_stages; }  // of a round's
};

// A warp's columns of the weight by up to sixteen rows of x: at[i] has rows 8 i … of x.
struct CodesSums {
  float at[codes_rows / 8][4] = {};
};

// What a thread decodes of a stage: two steps along k.
template <class T>
struct WeightFragments {
  AFragment<T> at[2];
};

// A stage of a weight, decoded: of sixteen columns and sixteen along k each lane's left operand.
struct DecodedStage {
  uint4 fragments[codes_columns / 16][block_k / 16][32];

  __device__ __forceinline__ uint4* of(const TeamThread& thread) {
    return &fragments[thread.thread / 32 % 2][2 * thread.half()][thread.thread % 32];
  }
};
template <class T>
__device__ __forceinline__ void store_decoded(uint4* to, const WeightFragments<T>& weights) {
  LATHE_UNROLL
  for (int step = 0; step < 2; ++step) {
    const uint32_t(&four)[4] = weights.at[step].registers;
    store_vector(to + step * 32, uint4{four[0], four[1], four[2], four[3]});
  }
}

// x of three rounds: one in hand, two on their way.
inline constexpr int left_rounds = 3;

template <class T, class Right, int weights>
struct CodesMemory {
  static constexpr int parts = CodesBlock<weights>::parts;
  DecodedStage decoded[2][weights][parts];
  CodesLeftTile<T> left[left_rounds][parts];
  alignas(16) typename Right::Memory right[weights];
};

// The end of a round for all threads of a block, in one place for those that decode and those that multiply.
__device__ __forceinline__ void end_round() { __syncthreads(); }

// ---- those that decode ----

// Addresses go from round to round: worked out anew they were a third of the loop's instructions.
template <class T, class Right, int weights>
__device__ __forceinline__ void decode_codes(Right& right, const TeamThread& thread, int64_t k,
                                             CodesMemory<T, Right, weights>& memory) {
  constexpr int parts = CodesBlock<weights>::parts, places = Right::rounds, ahead = places - 1;
  constexpr int place_bytes = static_cast<int>(sizeof(memory.right[0].codes[0]));
  const int steps = stages_along(k), rounds = (steps + parts - 1) / parts;
  const auto stages_from = [&](int step) {
    return steps - step < 0 ? 0 : steps - step < team_stages ? steps - step : team_stages;
  };
  uint8_t* place = right.codes_of_team();
  uint8_t* filling = place + ahead * place_bytes;
#pragma unroll 1
  for (int round = 0; round < ahead; ++round) {
    right.copy(place + round * place_bytes, stages_from(round * parts + thread.first_stage()));
    cp_async_commit();
  }
  right.begin_tables();
  end_round();  // what decoding looks up is there
  right.begin();
  cp_async_wait<ahead - 1>();
  end_round();  // the first round's codes are there
  uint4* decoded = memory.decoded[0][thread.weight][thread.first_stage()].of(thread);
  constexpr int stage_pitch = static_cast<int>(sizeof(DecodedStage) / sizeof *decoded);
  int to_other = static_cast<int>(sizeof memory.decoded[0] / sizeof *decoded), places_left = places;
  int round = 0, step = thread.first_stage();
  const auto decode_stage = [&](int stage) {
    WeightFragments<T> fragments;
    right.decode(fragments, step + stage, place, stage);
    store_decoded(decoded + stage * stage_pitch, fragments);
  };
  const auto decode_round = [&](int copied, const auto& decode_stages) {
    right.copy(filling, copied);
    cp_async_commit();
    decode_stages();
    right.advance(round);
    decoded += to_other;
    to_other = -to_other;
    filling = place;
    place += --places_left == 0 ? -(places - 1) * place_bytes : place_bytes;
    if (places_left == 0) places_left = places;
    ++round;
    step += parts;
    cp_async_wait<ahead - 1>();
    end_round();  // the round is decoded, and the next one's codes are there
  };
  const int whole = steps / parts - ahead;  // rounds in which every team has its stages to copy
#pragma unroll 1
  while (round < whole)
    decode_round(team_stages, [&] {
      LATHE_UNROLL
      for (int stage = 0; stage < team_stages; ++stage) decode_stage(stage);
    });
#pragma unroll 1
  while (round < rounds)
    decode_round(stages_from(step + ahead * parts), [&] {
#pragma unroll 1
      for (int stage = 0; stage < stages_from(step); ++stage) decode_stage(stage);
    });
}

// ---- those that multiply ----

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
  __device__ __forceinline__ CodesLeft(const DenseOperand<T>& x, int64_t first_row, int rows, Round* tiles)
      : tiles_(tiles), stride_(static_cast<int>(x.stride) * rows_at_once) {
    const int row = static_cast<int>(threadIdx.x) / Tile::vectors,
              column = static_cast<int>(threadIdx.x) % Tile::vectors * vector_elements<T>;
    place_ = Tile::offset(row, column);
    rows_ = rows - row;
    next_ = x.data + (rows_ > 0 ? (first_row + row) * x.stride : 0) + column;
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

template <class T, class Right, int weights>
__device__ __forceinline__ void multiply_codes(CodesSums& sums, const DenseOperand<T>& x, int64_t first_row,
                                               int64_t rows, int64_t k, CodesMemory<T, Right, weights>& memory) {
  constexpr int round_k = CodesBlock<weights>::parts * block_k;
  const int here = rows - first_row < codes_rows ? static_cast<int>(rows - first_row) : codes_rows;
  const int all = static_cast<int>(k);
  CodesLeft<T, weights> left(x, first_row, here, memory.left);
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

// ---- one weight, or several beside each other ----

template <class T, class Codes>
struct CodesProduct {
  DenseOperand<T> left, left2, right2;
  int64_t k, k2;
  Epilogue<T> epilogue;
  Codes codes;
};
// The tiles of several, beside each other in the grid.
template <class T, class Codes, int count>
struct CodesProducts {
  CodesProduct<T, Codes> of[count];
  unsigned end[count];  // of its tiles
};

template <class T>
struct CodesLoraStage {
  CodesLeftTile<T> left;
  CodesRightTile<T> right;
};

// sums += lora_t · lora_bᵀ: a stage or a few, one after another. By all threads of the block.
template <class T, class Codes>
__device__ __forceinline__ void multiply_lora(CodesSums& sums, const CodesProduct<T, Codes>& p,
                                              CodesLoraStage<T>& stage, int64_t first_row, int64_t first_column) {
  using Block = CodesBlock<1>;
  OperandReader<decltype(stage.left), Major::k, Block::multiplying> left;
  OperandReader<decltype(stage.right), Major::k, Block::multiplying> right;
  left.start(p.left2, first_row, p.epilogue.m, p.k2);
  right.start(p.right2, first_column, p.epilogue.n, p.k2);
  const AReader<decltype(stage.right), Major::k> weights(Block::multiplies() ? Block::first_column() : 0);
  const BReader<decltype(stage.left), Major::k> rows(0);
  const Pipeline<1> pipeline;
  const int steps = stages_along(p.k2);
  for (int step = 0; step < steps; ++step) {
    pipeline.advance(step, steps, [&](int) {
      if (!Block::multiplies()) return;
      left.read(stage.left);
      right.read(stage.right);
    });
    if (!Block::multiplies()) continue;
#pragma unroll 1
    for (int k_step = 0; k_step < block_k / 16; ++k_step) {
      AFragment<T> a;
      BFragment<T> b[2];
      weights.load(a, stage.right, 0, 16 * k_step);
      rows.load(b[0], b[1], stage.left, 0, 16 * k_step);
      mma(sums.at[0], a, b[0]);
      mma(sums.at[1], a, b[1]);
    }
  }
}

template <
    class T, class Right, int count,
    class Resources = BlockResources<CodesBlock<1>::threads, 1, static_cast<int>(sizeof(CodesMemory<T, Right, 1>))>>
__global__ void __launch_bounds__(Resources::threads, codes_blocks)
    codes_product_kernel(Resources, const __grid_constant__ CodesProducts<T, typename Right::Codes, count> all) {
  using Block = CodesBlock<1>;
  using Memory = CodesMemory<T, Right, 1>;
  Memory& memory = *dynamic_shared<Memory>();
  const DenseOperand<T>& left = all.of[0].left;  // of all
  const int64_t k = all.of[0].k;
  int index = 0;
  unsigned before = 0;
  while (index + 1 < count && blockIdx.y >= all.end[index]) before = all.end[index++];
  const CodesProduct<T, typename Right::Codes>& p = all.of[index];
  const int first_row = static_cast<int>(blockIdx.x) * codes_rows,
            first_column = static_cast<int>(blockIdx.y - before) * codes_columns;
  launch_dependents();
  CodesSums sums;
  if (Block::multiplies()) {
    grid_dependency_wait();
    multiply_codes(sums, left, first_row, all.of[0].epilogue.m, k, memory);
  } else {
    const TeamThread thread = TeamThread::of_block<1>();
    Right right(p.codes, memory.right[0], thread, first_column, p.epilogue.n, k);
    right.prefetch();
    grid_dependency_wait();
    decode_codes(right, thread, k, memory);
  }
  static_assert(sizeof(CodesLoraStage<T>) <= sizeof memory.decoded);
  multiply_lora(sums, p, *reinterpret_cast<CodesLoraStage<T>*>(&memory), first_row, first_column);
  using AllSums = SharedTile<float, codes_rows, codes_columns, Padded<32>>;
  static_assert(sizeof(AllSums) <= sizeof memory.decoded);
  AllSums& sums_of_all = *reinterpret_cast<AllSums*>(&memory);
  __syncthreads();  // all are done with the last stage
  if (Block::multiplies())
    for_each(sums, Block::first_column(),
             [&](int row, int column, float sum) { sums_of_all.elements[AllSums::offset(row, column)] = sum; });
  __syncthreads();  // the sums are there
  constexpr int eights = codes_columns / 8;
  const int row = static_cast<int>(threadIdx.x) / eights, column = static_cast<int>(threadIdx.x) % eights * 8;
  if (row >= codes_rows) return;
  const float* const from = sums_of_all.elements + AllSums::offset(row, column);
  const float4 low = load_vector<float4>(from), high = load_vector<float4>(from + 4);
  const float eight[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  finish(p.epilogue, first_row + row, first_column + column, eight);
}

template <class T, class Codes>
CodesProduct<T, Codes> codes_product(const ProductArgs& product, const Codes& codes) {
  return {dense_operand<T>(product.left),
          dense_operand<T>(product.left2),
          dense_operand<T>(product.right2),
          product.k,
          product.k2,
          epilogue_of<T>(product),
          codes};
}

template <class T, class Right, int count>
void start_codes_products(const char* name, CodesProducts<T, typename Right::Codes, count> all) {
  unsigned tiles = 0;
  for (int i = 0; i < count; ++i)
    all.end[i] = tiles += static_cast<unsigned>((all.of[i].epilogue.n + codes_columns - 1) / codes_columns);
  const auto rows = static_cast<unsigned>((all.of[0].epilogue.m + codes_rows - 1) / codes_rows);
  if (tiles > 0) launch_dependent(name, dim3(rows, tiles), codes_product_kernel<T, Right, count>, all);
}

// ---- gate and up, whose activated product goes out alone ----

template <class T, class Codes>
struct GatedCodes {
  DenseOperand<T> left;
  int64_t k;
  Codes codes[2];  // gate, up
  Activation activation;
  GatedEpilogue<T> epilogue;
};

// A block has the same 32 columns of both weights.
template <
    class T, class Right,
    class Resources = BlockResources<CodesBlock<2>::threads, 1, static_cast<int>(sizeof(CodesMemory<T, Right, 2>))>>
__global__ void __launch_bounds__(Resources::threads, codes_blocks)
    gated_codes_kernel(Resources, const __grid_constant__ GatedCodes<T, typename Right::Codes> p) {
  using Block = CodesBlock<2>;
  using Memory = CodesMemory<T, Right, 2>;
  Memory& memory = *dynamic_shared<Memory>();
  const GatedEpilogue<T>& e = p.epilogue;
  const int first_row = static_cast<int>(blockIdx.x) * codes_rows,
            first_column = static_cast<int>(blockIdx.y) * codes_columns;
  launch_dependents();
  CodesSums sums;
  if (Block::multiplies()) {
    grid_dependency_wait();
    multiply_codes(sums, p.left, first_row, e.m, p.k, memory);
  } else {
    const TeamThread thread = TeamThread::of_block<2>();
    Right right(p.codes[thread.weight], memory.right[thread.weight], thread, first_column, e.n, p.k);
    right.prefetch();
    grid_dependency_wait();
    decode_codes(right, thread, p.k, memory);
  }
  using AllSums = GatedSums<codes_rows, codes_columns>;
  static_assert(sizeof(AllSums) <= sizeof memory.decoded);
  AllSums& all = *reinterpret_cast<AllSums*>(&memory);
  __syncthreads();  // all are done with the last stage
  if (Block::multiplies())
    for_each(sums, Block::weight() * codes_columns + Block::first_column(),
             [&](int row, int column, float sum) { all.elements[AllSums::offset(row, column)] = sum; });
  __syncthreads();  // the sums are there
  p.activation == Activation::silu
      ? finish_gated<T, Silu, codes_rows, codes_columns>(e, all, first_row, first_column)
      : finish_gated<T, GeluTanh, codes_rows, codes_columns>(e, all, first_row, first_column);
}

template <class T, class Right>
void start_gated_codes(const char* name, const ProductArgs& product, const GatedResult& result,
                       const typename Right::Codes& gate, const typename Right::Codes& up) {
  const GatedCodes<T, typename Right::Codes> p{dense_operand<T>(product.left),
                                               product.k,
                                               {gate, up},
                                               result.activation,
                                               gated_epilogue<T>(product.m, product.n, result.out)};
  const auto count = [](int64_t all, int of_tile) { return static_cast<unsigned>((all + of_tile - 1) / of_tile); };
  const dim3 grid(count(product.m, codes_rows), count(product.n, codes_columns));
  if (product.n > 0) launch_dependent(name, grid, gated_codes_kernel<T, Right>, p);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
