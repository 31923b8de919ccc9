#include "kernels/copy/cpu.h"

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// A copy keeps subnormals in every instruction set.
template <class Out>
LATHE_INLINE void store_exactly(Out* out, Vec v, int count) {
  store_some(out, v, count);
}
LATHE_INLINE void store_exactly(bf16* out, Vec v, int count) {
  const VecH bits = to_bf16_bits_exactly(v);
  if (count < lanes) return store_partial_bits(out, bits, count);
  __builtin_memcpy(out, &bits, sizeof bits);
}

template <class Out, class In>
void cast_typed(const CastArgs& args) {
  Out* out = static_cast<Out*>(args.out);
  const In* in = static_cast<const In*>(args.in);
  for_row(args.count, [&](int64_t i, int count) { store_exactly(out + i, load_some(in + i, count), count); });
}

template <class Out>
void choose_in(const CastArgs& args) {
  switch (args.in_dtype) {
    case DType::bf16: return cast_typed<Out, bf16>(args);
    case DType::f16: return cast_typed<Out, f16>(args);
    default: return cast_typed<Out, float>(args);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void cast_run(CastArgs args) {
  switch (args.out_dtype) {
    case DType::bf16: return choose_in<bf16>(args);
    case DType::f16: return choose_in<f16>(args);
    default: return choose_in<float>(args);
  }
}
template void cast_run<Isa::LATHE_ISA>(CastArgs);

}  // namespace lathe::kernels
