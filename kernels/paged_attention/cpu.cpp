#include "kernels/paged_attention/cpu.h"

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// The same bits under every instruction set, subnormals too.
LATHE_INLINE void put(float* to, Vec v, int count) { store_some(to, v, count); }
LATHE_INLINE void put(f16* to, Vec v, int count) { store_some(to, v, count); }
LATHE_INLINE void put(bf16* to, Vec v, int count) {
  const VecH bits = to_bf16_bits_exactly(v);
  if (count == lanes) {
    __builtin_memcpy(to, &bits, sizeof bits);
  } else {
    store_partial_bits(to, bits, count);
  }
}

template <class From, class To>
void convert(const From* from, To* to, int64_t dim) {
  for_row(dim, [&](int64_t i, int count) { put(to + i, load_some(from + i, count), count); });
}

template <class From>
void quantise(const From* from, int8_t* to, float* scale, int64_t dim) {
  Vec highest = zero();
  for_row(dim, [&](int64_t i, int count) { highest = max(abs(load_some(from + i, count)), highest); });
  const float most = max_lanes(highest);
  const bool is_zero = most < 0x1p-100f;
  *scale = is_zero ? 0.0f : most / 127.0f;
  const Vec factor = splat(is_zero ? 0.0f : 127.0f / most);
  const Vec magic = splat(12582912.0f);  // 1.5·2^23: adding it rounds to the nearest integer, ties to even
  for_row(dim, [&](int64_t i, int count) {
    const VecI rounded = (VecI)(load_some(from + i, count) * factor + magic) - (VecI)magic;
    for (int j = 0; j < count; ++j) to[i + j] = static_cast<int8_t>(rounded[j]);
  });
}

template <class From>
void append(const KvAppendRowArgs& row) {
  const From* from = static_cast<const From*>(row.from);
  switch (row.to_dtype) {
    case DType::f32: return convert(from, static_cast<float*>(row.to), row.dim);
    case DType::bf16: return convert(from, static_cast<bf16*>(row.to), row.dim);
    case DType::f16: return convert(from, static_cast<f16*>(row.to), row.dim);
    default: return quantise(from, static_cast<int8_t*>(row.to), row.scale, row.dim);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void kv_append_row(const KvAppendRowArgs& row) {
  switch (row.from_dtype) {
    case DType::bf16: return append<bf16>(row);
    case DType::f16: return append<f16>(row);
    default: return append<float>(row);
  }
}
template void kv_append_row<Isa::LATHE_ISA>(const KvAppendRowArgs&);

}  // namespace lathe::kernels
