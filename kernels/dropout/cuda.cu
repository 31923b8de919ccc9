// A thread draws four counters, for two groups of eight elements: bound by instructions, which with a group to a thread
// were half again as many (70 % of an H200's bandwidth).
#include "kernels/dropout/bodies.h"

#include "kernels/cuda/bounds.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/half_rows.h"
#include "kernels/cuda/philox.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// Of the sequences of one launch (kernels/cuda/bounds.h).
struct SampleNumbers {
  uint16_t at[sequences_per_launch];
};

// The sequence that holds a token: the last that starts at it or before, which skips empty ones.
__device__ __forceinline__ int sequence_of(const SequenceBounds& bounds, int64_t token) {
  int low = 0, high = bounds.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (bounds.at[middle] <= token ? low : high) = middle;
  }
  return low;
}

// The words of an element's counter that know the step: a stored one is put where philox_counter() has it.
struct StepWords {
  uint32_t word1, word2;
};
__device__ __forceinline__ StepWords step_words(const DropoutArgs& a) {
  const uint32_t step = a.stored_step != nullptr ? *a.stored_step : 0;
  return {a.counter[1] | step >> 16 << 16, a.counter[2] | step << 16};
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    dropout_kernel(DropoutArgs a, Tiling tiling, SequenceBounds bounds, SampleNumbers samples) {
  const HalfRows own = half_rows_of_thread(tiling, a.columns);
  if (own.count[0] == 0) return;
  const int64_t row = bounds.at[0] + own.row;
  Group groups[2];
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h)
    if (own.count[h] > 0) groups[h] = load_group<aligned>(row_of<T>(a.x, row) + own.column[h], own.count[h]);
  const int sequence = sequence_of(bounds, row);
  const uint32_t position = static_cast<uint32_t>(row - bounds.at[sequence]);
  const StepWords step = step_words(a);
  const uint32_t word1 = step.word1 | samples.at[sequence];
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h) {
    if (own.count[h] == 0) return;
    const uint32_t first = (position << dropout_position_shift) | static_cast<uint32_t>(own.column[h] / 4);
    Group& group = groups[h];
    LATHE_UNROLL
    for (int four = 0; four < 2; ++four) {
      const PhiloxWords counter{{first + static_cast<uint32_t>(four), word1, step.word2, a.counter[3]}};
      const PhiloxWords words = philox4x32_10(counter, a.key[0], a.key[1]);
      LATHE_UNROLL
      for (int j = 0; j < 4; ++j) {
        float& value = group.at[4 * four + j];
        value = words.at[j] >= a.threshold ? value * a.scale : 0.0f;
      }
    }
    store_group<aligned>(row_of<T>(a.out, row) + own.column[h], group, own.count[h]);
  }
}

template <class T>
void drop(const DropoutArgs& a) {
  const bool aligned = rows_aligned<T>(a.out) && rows_aligned<T>(a.x);
  const int32_t* numbers = a.sample_numbers;
  for_each_launch(a.cu_seqlens, a.sequences, [&](const SequenceBounds& bounds) {
    SampleNumbers samples;
    for (int i = 0; i < bounds.count; ++i) samples.at[i] = static_cast<uint16_t>(numbers[i]);
    numbers += bounds.count;
    launch_elementwise("dropout", bounds.at[bounds.count] - bounds.at[0], half_columns(a.columns),
                       aligned ? dropout_kernel<T, true> : dropout_kernel<T, false>, a, bounds, samples);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void dropout_rows(const DropoutArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { drop<T>(args); });
}
template void dropout_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const DropoutArgs&);

}  // namespace lathe::kernels
