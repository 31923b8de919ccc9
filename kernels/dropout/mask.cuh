// A dropout mask (dropout.h) where a kernel reads what it drops from.
#pragma once

#include "kernels/cuda/bounds.h"
#include "kernels/cuda/philox.h"
#include "kernels/dropout/mask.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Of the sequences of one launch (kernels/cuda/bounds.h).
struct SampleNumbers {
  uint16_t at[sequences_per_launch];
};

// Calls start(bounds, samples) for all sequences (on the host), in order, as many at a time as a launch takes.
template <class Start>
void for_each_launch_of_samples(const int32_t* cu_seqlens, const int32_t* sample_numbers, int64_t sequences,
                                const Start& start) {
  for_each_launch(cu_seqlens, sequences, [&](const SequenceBounds& bounds) {
    SampleNumbers samples;
    for (int i = 0; i < bounds.count; ++i) samples.at[i] = static_cast<uint16_t>(sample_numbers[i]);
    sample_numbers += bounds.count;
    start(bounds, samples);
  });
}

// The sequence that holds a token: the last that starts at it or before, which skips empty ones.
__device__ __forceinline__ int sequence_of(const SequenceBounds& bounds, int64_t token) {
  int low = 0, high = bounds.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (bounds.at[middle] <= token ? low : high) = middle;
  }
  return low;
}

// The mask as a kernel's argument.
struct MaskArgs {
  PhiloxKeys keys;
  uint32_t counter[4];
  const uint32_t* stored_step;
  uint32_t threshold;
  float scale;
};
inline MaskArgs mask_args(const DropoutMask& mask) {
  return {philox_keys(mask.key[0], mask.key[1]),
          {mask.counter[0], mask.counter[1], mask.counter[2], mask.counter[3]},
          mask.stored_step,
          mask.threshold,
          mask.scale};
}

// What is to be added to the counter for the step; 0 where that has it.
__device__ __forceinline__ uint32_t added_step(const MaskArgs& mask) {
  return mask.stored_step != nullptr ? *mask.stored_step : 0;
}

// A token's place among the counters: word 0 of column 0, and what words 1 and 2 have beside the mask's, where
// philox_counter() puts sample and step.
struct MaskRow {
  uint32_t position_bits, sample, step;
};
__device__ __forceinline__ MaskRow mask_row(int64_t position, uint32_t sample, uint32_t step) {
  return {static_cast<uint32_t>(position) << dropout_position_shift, sample | step >> 16 << 16, step << 16};
}
__device__ __forceinline__ MaskRow mask_row_of(const SequenceBounds& bounds, const SampleNumbers& samples,
                                               int64_t token, uint32_t step) {
  const int sequence = sequence_of(bounds, token);
  return mask_row(token - bounds.at[sequence], samples.at[sequence], step);
}

// values[0..8) of a row from a column on, a multiple of four: dropped or scaled. `stream`: what is added to the mask's.
__device__ __forceinline__ void drop_eight(float (&values)[8], const MaskArgs& mask, const MaskRow& row,
                                           uint32_t column, uint32_t stream = 0) {
  LATHE_UNROLL
  for (uint32_t four = 0; four < 2; ++four) {
    const PhiloxWords counter{{row.position_bits | (column / 4 + four), mask.counter[1] | row.sample,
                               (mask.counter[2] | row.step) + stream, mask.counter[3]}};
    const PhiloxWords words = philox4x32_10(counter, mask.keys);
    LATHE_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      float& value = values[4 * four + j];
      value = words.at[j] >= mask.threshold ? value * mask.scale : 0.0f;
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
