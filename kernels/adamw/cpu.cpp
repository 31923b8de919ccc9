#include "kernels/adamw/cpu.h"

#include "kernels/adamw/cpu_codes.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// One step of `lanes` elements; m and v become the new ones. Returns the new weight.
LATHE_INLINE Vec step(const AdamWConstants& c, Vec weight, Vec grad, Vec& m, Vec& v) {
  const Vec g = splat(c.grad_scale) * grad;
  m = fma(splat(c.beta1), m, splat(c.one_less_beta1) * g);
  v = fma(splat(c.beta2), v, splat(c.one_less_beta2) * (g * g));
  const Vec denominator = fma(sqrt(v), splat(c.inverse_correction2), splat(c.eps));
  const Vec decayed = splat(c.keep_weight) * weight;
  return decayed - splat(c.step_size) * (m / denominator);
}

// Elements [i, i + count): m, v and weight change in place.
LATHE_INLINE void step(const AdamWConstants& c, float* weight, const float* grad, float* first, float* second,
                       int64_t i, int count) {
  Vec m = load_some(first + i, count), v = load_some(second + i, count);
  const Vec moved = step(c, load_some(weight + i, count), load_some(grad + i, count), m, v);
  store_some(first + i, m, count);
  store_some(second + i, v, count);
  store_some(weight + i, moved, count);
}

constexpr int block = 256;

void decode(const CodeTables& tables, const uint8_t* codes, float absmax, int count, float* values) {
  for (int i = 0; i < count; ++i) values[i] = tables.values[codes[i]] * absmax;
}

float divisor_of(float absmax) { return absmax > 0.0f ? absmax : 1.0f; }

float encode(const CodeTables& tables, const float* values, int count, uint8_t* codes) {
  Vec largest = zero();
  for_row(count, [&](int64_t i, int n) { largest = max(abs(load_some(values + i, n)), largest); });
  const float absmax = max_lanes(largest), divisor = divisor_of(absmax);
  for (int i = 0; i < count; ++i) codes[i] = nearest_code(tables.thresholds, tables.first_code, values[i] / divisor);
  return absmax;
}

// Block b, with `count` elements, one by one.
void step_block(const AdamW8bitArgs& args, int64_t b, int count) {
  const int64_t start = b * block;
  float m[block], v[block];
  decode(args.m_codes, args.m + start, args.m_absmax[b], count, m);
  decode(args.v_codes, args.v + start, args.v_absmax[b], count, v);
  for_row(count, [&](int64_t i, int n) { step(args.constants, args.weight + start, args.grad + start, m, v, i, n); });
  args.m_absmax[b] = encode(args.m_codes, m, count, args.m + start);
  args.v_absmax[b] = encode(args.v_codes, v, count, args.v + start);
}

#if defined(LATHE_AVX512)
struct MapTables {
  FloatTable values, thresholds;
};

template <bool is_signed>
LATHE_INLINE float encode_block(const FloatTable& thresholds, Vec largest, const float* values, uint8_t* codes) {
  const float absmax = max_lanes(largest);
  const Vec divisor = splat(divisor_of(absmax));
  for (int i = 0; i < block; i += code_group)
    encode<is_signed>(thresholds, load(values + i) / divisor, load(values + i + lanes) / divisor, codes + i);
  return absmax;
}

// Block b, which is full.
void step_block(const AdamW8bitArgs& args, const MapTables& m_map, const MapTables& v_map, int64_t b) {
  const int64_t start = b * block;
  const Vec m_scale = splat(args.m_absmax[b]), v_scale = splat(args.v_absmax[b]);
  Vec m_largest = zero(), v_largest = zero();
  float m_new[block], v_new[block];
  for (int i = 0; i < block; i += code_group) {
    Vec m[2], v[2];
    decode(m_map.values, args.m + start + i, m[0], m[1]);
    decode(v_map.values, args.v + start + i, v[0], v[1]);
    for (int half = 0; half < 2; ++half) {
      const int at = i + half * lanes;
      float* weight = args.weight + start + at;
      m[half] = m[half] * m_scale, v[half] = v[half] * v_scale;
      store(weight, step(args.constants, load(weight), load(args.grad + start + at), m[half], v[half]));
      m_largest = max(abs(m[half]), m_largest), v_largest = max(abs(v[half]), v_largest);
      store(m_new + at, m[half]), store(v_new + at, v[half]);
    }
  }
  args.m_absmax[b] = encode_block<true>(m_map.thresholds, m_largest, m_new, args.m + start);
  args.v_absmax[b] = encode_block<false>(v_map.thresholds, v_largest, v_new, args.v + start);
}
#endif

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void adamw_range(AdamWArgs args) {
  for_row(args.end - args.begin, [&](int64_t i, int count) {
    step(args.constants, args.weight, args.grad, args.m, args.v, args.begin + i, count);
  });
}
template void adamw_range<Isa::LATHE_ISA>(AdamWArgs);

template <Isa>
void adamw_8bit_range(AdamW8bitArgs args) {
  int64_t b = args.begin;
#if defined(LATHE_AVX512)
  const MapTables m_map = {float_table(args.m_codes.values), float_table(args.m_codes.thresholds)};
  const MapTables v_map = {float_table(args.v_codes.values), float_table(args.v_codes.thresholds)};
  for (; b < args.end && (b + 1) * block <= args.count; ++b) step_block(args, m_map, v_map, b);
#endif
  for (; b < args.end; ++b) {
    const int64_t left = args.count - b * block;
    step_block(args, b, left < block ? static_cast<int>(left) : block);
  }
}
template void adamw_8bit_range<Isa::LATHE_ISA>(AdamW8bitArgs);

}  // namespace lathe::kernels
