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
//   Codes                  the weight as a kernel's argument; a Codes::Place, in it or of many weights in device
//                          memory, is what differs from weight to weight
//   rounds, Memory         of how many rounds codes are in hand or on their way, and where (shared): codes[rounds]
//   Right(codes, place, memory, thread, first_column, columns, k)   of a block's 32 columns, of so many that there are
//   prefetch()             asks for their beginnings
//   codes_of_team()        the place of its team's stages in the first round's codes
//   copy(place, count)     starts the copies of its team's next stages to there, of so many that there are
//   begin_tables()         what decoding needs beside them; a barrier follows
//   begin()                what needs that; a barrier follows
//   decode(weights, step, place, stage)   this thread's weights of a step, which is one of the stages whose codes are
//                          there, rounded to T; its team's steps in order
//   advance(round)         after the round's decode()
#pragma once

#include "kernels/matmul/cuda/mainloop.cuh"

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
  int step = thread.first_stage();
  const auto decode_stage = [&](int stage) {
    WeightFragments<T> fragments;
    right.decode(fragments, step + stage, place, stage);
    store_decoded(decoded + stage * stage_pitch, fragments);
  };
  const auto decode_round = [&](int round, int copied, const auto& decode_stages) {
    right.copy(filling, copied);
    cp_async_commit();
    decode_stages();
    right.advance(round);
    decoded += to_other;
    to_other = -to_other;
    filling = place;
    place += --places_left == 0 ? -(places - 1) * place_bytes : place_bytes;
    if (places_left == 0) places_left = places;
    step += parts;
    cp_async_wait<ahead - 1>();
    end_round();  // the round is decoded, and the next one's codes are there
  };
  const int whole = steps / parts - ahead;  // rounds in which every team has its stages to copy
  int round = 0;
#pragma unroll 1
  for (; round < whole; ++round)
    decode_round(round, team_stages, [&] {
      LATHE_UNROLL
      for (int stage = 0; stage < team_stages; ++stage) decode_stage(stage);
    });
#pragma unroll 1
  for (; round < rounds; ++round)
    decode_round(round, stages_from(step + ahead * parts), [&] {
#pragma unroll 1
      for (int stage = 0; stage < stages_from(step); ++stage) decode_stage(stage);
    });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
