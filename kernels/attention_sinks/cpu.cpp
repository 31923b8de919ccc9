#include "kernels/attention_sinks/bodies.h"
#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
LATHE_INLINE T* row_of(const HeadRows& rows, int64_t token, int64_t head) {
  return static_cast<T*>(rows.data) + token * rows.token + head * rows.head;
}

template <class T>
float number(const void* from, int64_t i) {
  return static_cast<float>(static_cast<const T*>(from)[i]);
}

float exp_of(float x) {
  const Vec e = exp(splat(x));
  float first;
  __builtin_memcpy(&first, &e, sizeof first);
  return first;
}

template <class T>
void forward(const AttentionSinksArgs& args, int64_t token) {
  for (int64_t head = 0; head < args.heads; ++head) {
    const float lse = args.lse[head * args.lse_head + token], sink = number<T>(args.sinks, head);
    const Vec factor = splat(1.0f / (1.0f + exp_of(sink - lse)));
    const T* x = row_of<const T>(args.x, token, head);
    T* out = row_of<T>(args.out, token, head);
    for_row(args.head_dim, [&](int64_t i, int count) { store_some(out + i, load_some(x + i, count) * factor, count); });
    if (args.lse_out == nullptr) continue;
    args.lse_out[head * args.lse_out_head + token] =
        (lse > sink ? lse : sink) + __builtin_log1pf(exp_of(-__builtin_fabsf(lse - sink)));
  }
}

template <class T>
void backward(const AttentionSinksBackwardArgs& args, int64_t token) {
  for (int64_t head = 0; head < args.heads; ++head) {
    const T* g = row_of<const T>(args.grad_out, token, head);
    const T* out = row_of<const T>(args.out, token, head);
    args.dots[token * args.heads + head] = row_sum(args.head_dim, [&](Vec partial, int64_t i, int count) {
      return fma(load_some(g + i, count), load_some(out + i, count), partial);
    });
    args.shares[token * args.heads + head] =
        exp_of(number<T>(args.sinks, head) - args.lse[head * args.lse_head + token]);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void attention_sinks_rows(AttentionSinksArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t token = args.row_begin; token < args.row_end; ++token) forward<T>(args, token);
  });
}
template void attention_sinks_rows<Isa::LATHE_ISA>(AttentionSinksArgs);

template <Isa>
void attention_sinks_backward_rows(AttentionSinksBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t token = args.row_begin; token < args.row_end; ++token) backward<T>(args, token);
  });
}
template void attention_sinks_backward_rows<Isa::LATHE_ISA>(AttentionSinksBackwardArgs);

}  // namespace lathe::kernels
