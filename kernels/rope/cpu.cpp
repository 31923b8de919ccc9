#include "kernels/rope/bodies.h"

#include "kernels/simd/element.h"
#include "kernels/simd/vec.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

LATHE_INLINE void rotate(Vec lower, Vec upper, Vec cosine, Vec sine, Vec* out_lower, Vec* out_upper) {
  *out_lower = fma(lower, cosine, -(upper * sine));
  *out_upper = fma(upper, cosine, lower * sine);
}

template <class T>
void rotate_tokens(const RopeArgs& args) {
  const int64_t half = args.half, whole = half / lanes * lanes;
  const int left = static_cast<int>(half - whole);
  for (int64_t token = args.begin; token < args.end; ++token) {
    const float* cosine = args.cos_table + args.positions.data[token] * args.cos_row;
    const float* sine = args.sin_table + args.positions.data[token] * args.sin_row;
    for (int64_t head = 0; head < args.heads; ++head) {
      const T* x = static_cast<const T*>(args.x) + token * args.x_token + head * args.x_head;
      T* out = static_cast<T*>(args.out) + token * args.out_token + head * args.out_head;
      Vec lower, upper;
      for (int64_t d = 0; d < whole; d += lanes) {
        rotate(load(x + d), load(x + d + half), load(cosine + d), load(sine + d) * splat(args.direction), &lower,
               &upper);
        store(out + d, lower);
        store(out + d + half, upper);
      }
      if (left > 0) {
        rotate(load_partial(x + whole, left), load_partial(x + whole + half, left), load_partial(cosine + whole, left),
               load_partial(sine + whole, left) * splat(args.direction), &lower, &upper);
        store_partial(out + whole, lower, left);
        store_partial(out + whole + half, upper, left);
      }
    }
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void rope_tokens(const RopeArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { rotate_tokens<T>(args); });
}
template void rope_tokens<Isa::LATHE_ISA>(const RopeArgs&);

}  // namespace lathe::kernels
