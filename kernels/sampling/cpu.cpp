#include "kernels/sampling/cpu.h"

#include "kernels/linear_cross_entropy/row_log_sum.h"

namespace lathe::kernels::LATHE_ISA {

void scan_logits(LogitScan args) {
  const float* z = args.logits;
  VecI not_numbers{};
  for_row(args.count, [&](int64_t i, int count) {
    const Vec v = load_logits(z + i, count);
    not_numbers |= (VecI)(v != v);
  });
  int32_t any = 0;
  for (int i = 0; i < lanes; ++i) any |= not_numbers[i];
  const float largest = row_max(z, args.count);
  *args.has_nan = any != 0;
  *args.largest = largest;
  *args.first = -1;
  for (int64_t i = 0; i < args.count; ++i) {
    if (z[i] == largest) {
      *args.first = i;
      return;
    }
  }
}

void normalise_logits(LogitNormaliser args) {
  *args.log_sum = log_of_sum(row_exp_sum(args.logits, args.count, args.largest));
}

void sampling_weights(SamplingWeights args) {
  const Vec shift = splat(args.largest), inverse = splat(args.inverse_temperature);
  const auto weight_of = [&](const float* z, int count) { return exp((load_logits(z, count) - shift) * inverse); };
  for (int64_t start = 0; start < args.count; start += sampling_block) {
    const int64_t left = args.count - start, n = left < sampling_block ? left : sampling_block;
    const float* z = args.logits + start;
    if (args.weights != nullptr) {
      for_row(n, [&](int64_t i, int count) { store_some(args.weights + start + i, weight_of(z + i, count), count); });
    }
    if (args.sums != nullptr) {
      args.sums[start / sampling_block] =
          row_sum(n, [&](Vec partial, int64_t i, int count) { return partial + weight_of(z + i, count); });
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
