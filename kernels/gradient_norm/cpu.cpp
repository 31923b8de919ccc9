#include "kernels/gradient_norm/cpu.h"

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// `lanes` doubles, which the compiler splits over registers. Every set sums in the order of 16 partial sums.
typedef double VecD __attribute__((vector_size(8 * lanes)));

template <class T>
double block_sum(const T* x, int64_t n) {
  constexpr int parts = 16 / lanes;
  VecD part[parts] = {};
  const auto join = [&](VecD& sum, const T* from, int count) {
    const VecD wide = __builtin_convertvector(load_some(from, count), VecD);
    sum = sum + wide * wide;
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int p = 0; p < parts; ++p) join(part[p], x + i + p * lanes, lanes);
  }
  for (int p = 0; p < parts; ++p) {
    const int64_t left = n - i - p * lanes;
    if (left > 0) join(part[p], x + i + p * lanes, left < lanes ? static_cast<int>(left) : lanes);
  }
  double sums[16];
  __builtin_memcpy(sums, part, sizeof sums);
  for (int width = 8; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) sums[k] += sums[k + width];
  }
  return sums[0];
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void sum_of_squares_blocks(SumOfSquaresArgs args) {
  for (int64_t block = args.begin; block < args.end; ++block) {
    const int64_t start = block * square_block;
    const int64_t left = args.count - start, n = left < square_block ? left : square_block;
    with_element(args.dtype,
                 [&]<class T>(T) { args.sums[block] = block_sum(static_cast<const T*>(args.x) + start, n); });
  }
}
template void sum_of_squares_blocks<Isa::LATHE_ISA>(SumOfSquaresArgs);

}  // namespace lathe::kernels
