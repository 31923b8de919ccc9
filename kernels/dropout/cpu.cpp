#include "kernels/dropout/bodies.h"

#include "kernels/simd/element.h"
#include "kernels/simd/philox.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
void drop_row(const DropoutArgs& args, int64_t row, uint32_t sample, uint32_t position) {
  const T* x = row_of<T>(args.x, row);
  T* out = row_of<T>(args.out, row);
  const VecU threshold = splat_words(args.mask.threshold), lane_counter = counter_of_lane();
  for (int64_t begin = 0; begin < args.columns; begin += 4 * lanes) {
    const uint32_t first = (position << dropout_position_shift) | static_cast<uint32_t>(begin / 4);
    VecU words[4] = {splat_words(first) + lane_counter, splat_words(args.mask.counter[1] | sample),
                     splat_words(args.mask.counter[2]), splat_words(args.mask.counter[3])};
    philox4x32_10(words, args.mask.key);
    words_in_order(words);
    for (int i = 0; i < 4 && begin + i * lanes < args.columns; ++i) {
      const int64_t at = begin + i * lanes, left = args.columns - at;
      const int count = left < lanes ? static_cast<int>(left) : lanes;
      const Vec kept = load_some(x + at, count) * splat(args.mask.scale);
      store_some(out + at, select((VecI)(words[i] >= threshold), kept, zero()), count);
    }
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void dropout_rows(DropoutArgs args) {
  int64_t sequence = 0;
  for (int64_t row = args.row_begin; row < args.row_end; ++row) {
    while (row >= args.cu_seqlens[sequence + 1]) ++sequence;
    const uint32_t sample = static_cast<uint32_t>(args.sample_numbers[sequence]);
    const uint32_t position = static_cast<uint32_t>(row - args.cu_seqlens[sequence]);
    with_element(args.dtype, [&]<class T>(T) { drop_row<T>(args, row, sample, position); });
  }
}
template void dropout_rows<Isa::LATHE_ISA>(DropoutArgs);

}  // namespace lathe::kernels
