// Kernels that prove the emulator: each of the faulty ones has one planted fault.
#pragma once

#include <cstdint>

namespace lathe::testing {

enum class Planted {
  none,                    // reverses its input through shared memory, correctly
  halves_of_words,         // no fault either: neighbours write halves of one word, and read the whole after a barrier
  half_of_a_word_read,     // the whole is read without that barrier
  half_of_a_word_written,  // and written
  missing_barrier,
  race_between_warps,
  missing_warp_barrier,
  off_by_one_shared,
  off_by_one_global,
  barrier_in_a_branch,
  exit_before_barrier,
  exit_before_shuffle,
  shuffle_from_outside_the_mask,
  copy_never_waited_for,
  read_before_copy_arrived,
  misaligned_vector,
  misaligned_scalar,
  unwritten_shared,
  read_before_grid_wait,  // these two of a dependent launch
  copy_before_grid_wait,
  exit_before_grid_wait,
  order_dependent_sum,  // atomic additions: allowed, but not the same bits in every order
};
// Queues the kernel on the simt device: out[i] from in[i], i < count; count is the number of threads of its one block.
void launch_planted(Planted fault, float* out, const float* in, int count);

// out[lane] for 32 lanes: what each warp collective gives on `in`.
enum class Collective { shuffle_up, shuffle_down, shuffle_xor, shuffle_of_quarters, ballot, reduce_max, match };
void launch_collective(Collective collective, uint32_t* out, const uint32_t* in);

// out [16 × 8] f32 = a · bᵀ through the tensor-core instructions; a [16, k] and b [8, k] with k fastest.
enum class Tile { bf16, f16, tf32, s8, bf16_through_shared };
void launch_tile(Tile tile, void* out, const void* a, const void* b);

// out [3, row_sum_threads]: Σ in, 2 Σ in and 3 Σ in as every thread of a row has them (kernels/cuda/row.h).
inline constexpr int row_sum_threads = 256;
void launch_row_sums(float* out, const float* in);

void launch_shape(unsigned threads, unsigned long shared_bytes);  // an empty kernel

}  // namespace lathe::testing
