#include "kernels/sampling/cpu.h"

#include "kernels/linear_cross_entropy/row_log_sum.h"
#include "kernels/sampling/weight.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

typedef uint64_t VecL __attribute__((vector_size(8 * lanes)));

// By reference: a vector wider than the set's registers has no calling convention.
LATHE_INLINE void weigh(VecL& weights, Vec z) {
  Vec fraction, exponent;
  exponential_parts(max(z, splat(sampling_lowest_z)), fraction, exponent);
  const VecI mantissa = __builtin_convertvector(fraction * 0x1p24f, VecI),
             shift = __builtin_convertvector(-exponent, VecI);
  weights = (__builtin_convertvector((VecU)mantissa, VecL) << 16) >> __builtin_convertvector((VecU)shift, VecL);
}

LATHE_INLINE void store_weights(uint64_t* to, const VecL& weights, int count) {
  if (count == lanes) {
    __builtin_memcpy(to, &weights, sizeof weights);
    return;
  }
  for (int i = 0; i < count; ++i) to[i] = weights[i];
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
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
template void scan_logits<Isa::LATHE_ISA>(LogitScan);

template <Isa>
void normalise_logits(LogitNormaliser args) {
  *args.log_sum = log_of_sum(row_exp_sum(args.logits, args.count, args.largest));
}
template void normalise_logits<Isa::LATHE_ISA>(LogitNormaliser);

template <Isa>
void sampling_weights(SamplingWeights args) {
  const Vec shift = splat(args.largest), inverse = splat(args.inverse_temperature);
  for (int64_t start = 0; start < args.count; start += sampling_block) {
    const int64_t left = args.count - start, n = left < sampling_block ? left : sampling_block;
    const float* z = args.logits + start;
    VecL partial{};
    for_row(n, [&](int64_t i, int count) {
      VecL weights;
      weigh(weights, (load_logits(z + i, count) - shift) * inverse);
      if (args.weights != nullptr) store_weights(args.weights + start + i, weights, count);
      partial += weights;  // lanes past the end weigh nothing
    });
    if (args.sums == nullptr) continue;
    uint64_t sum = 0;
    for (int i = 0; i < lanes; ++i) sum += partial[i];
    args.sums[start / sampling_block] = sum;
  }
}
template void sampling_weights<Isa::LATHE_ISA>(SamplingWeights);

}  // namespace lathe::kernels
