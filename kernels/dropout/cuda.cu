// A thread draws two counters, for eight elements: some hundred instructions beside 32 or 64 bytes.
#include "kernels/dropout/cuda.h"

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/philox.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// Sequences travel as kernel arguments (at most 4 KiB of them): the operation allocates nothing and waits for nothing.
constexpr int sequences_per_launch = 448;
struct Samples {
  int32_t bounds[sequences_per_launch + 1];
  int32_t numbers[sequences_per_launch];
  int count;
};

// The sequence that holds a row of the launch: the last that starts at it or before, which skips empty ones.
__device__ __forceinline__ int sequence_of(const Samples& samples, int64_t row) {
  int low = 0, high = samples.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (samples.bounds[middle] <= row ? low : high) = middle;
  }
  return low;
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) dropout_kernel(DropoutArgs a, Tiling tiling, Samples samples) {
  const auto [local, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t row = samples.bounds[0] + local;
  const int sequence = sequence_of(samples, row);
  const uint32_t position = static_cast<uint32_t>(row - samples.bounds[sequence]);
  const uint32_t first = (position << dropout_position_shift) | static_cast<uint32_t>(column / 4);
  const uint32_t word1 = a.counter[1] | static_cast<uint32_t>(samples.numbers[sequence]);
  Group group = load_group<aligned>(row_of<T>(a.x, row) + column, count);
  LATHE_UNROLL
  for (int half = 0; half < 2; ++half) {
    const PhiloxWords counter{{first + static_cast<uint32_t>(half), word1, a.counter[2], a.counter[3]}};
    const PhiloxWords words = philox4x32_10(counter, a.key[0], a.key[1]);
    LATHE_UNROLL
    for (int j = 0; j < 4; ++j) {
      float& value = group.at[4 * half + j];
      value = words.at[j] >= a.threshold ? value * a.scale : 0.0f;
    }
  }
  store_group<aligned>(row_of<T>(a.out, row) + column, group, count);
}

template <class T>
void drop(const DropoutArgs& a) {
  const bool aligned = rows_aligned<T>(a.out) && rows_aligned<T>(a.x);
  for (int64_t first = 0; first < a.sequences; first += sequences_per_launch) {
    Samples samples;
    samples.count =
        static_cast<int>(a.sequences - first < sequences_per_launch ? a.sequences - first : sequences_per_launch);
    for (int i = 0; i < samples.count; ++i) samples.numbers[i] = a.sample_numbers[first + i];
    for (int i = 0; i <= samples.count; ++i) samples.bounds[i] = a.cu_seqlens[first + i];
    launch_elementwise("dropout", samples.bounds[samples.count] - samples.bounds[0], a.columns,
                       aligned ? dropout_kernel<T, true> : dropout_kernel<T, false>, a, samples);
  }
}

}  // namespace

void dropout_rows(const DropoutArgs& args) { args.dtype == DType::bf16 ? drop<bf16_t>(args) : drop<float>(args); }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
