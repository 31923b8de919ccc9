#include "kernels/gated_delta/cpu/state.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using namespace gated_delta;

// Through x̂ = x · scale / √(Σ x² + 1e-6).
template <class T>
LATHE_INLINE void store_grad_of_normed(T* to, const T* x, const float* gradient, int64_t dim, float scale) {
  const float r = inverse_length(x, dim);
  const float along = row_sum(dim, [&](Vec partial, int64_t i, int n) {
    return fma(load_some(x + i, n), load_some(gradient + i, n), partial);
  });
  const Vec factor = splat(scale * r), less = splat(-(along * r) * r);
  for_row(dim, [&](int64_t i, int n) {
    store_some(to + i, factor * fma(less, load_some(x + i, n), load_some(gradient + i, n)), n);
  });
}

// What a value head adds to the gradients of its key head's q̂ and k̂.
LATHE_INLINE void add_head(const GatedDeltaBackwardArgs& args, int64_t row, int64_t head, float* grad_q,
                           float* grad_k) {
  const int64_t dim = args.key_dim, place = (row * args.value_heads + head) * dim;
  const float *const of_q = args.work.grad_q + place, *const of_k = args.work.grad_k + place;
  for_row(dim, [&](int64_t i, int n) {
    store_some(grad_q + i, load_some(grad_q + i, n) + load_some(of_q + i, n), n);
    store_some(grad_k + i, load_some(grad_k + i, n) + load_some(of_k + i, n), n);
  });
}

template <class T>
LATHE_INLINE void grad_values(const GatedDeltaBackwardArgs& args, int64_t row, int64_t head) {
  const int64_t dim = args.value_dim, place = (row * args.value_heads + head) * dim;
  const float *const missing = args.work.missing + place, *const grad_delta = args.work.grad_delta + place;
  T* const grad_v = row_of<T>(args.grad_qkv, row) + args.v_column(head);
  const Vec beta = sigmoid(splat(static_cast<float>(row_of<T>(args.b, row)[head])));
  for_row(dim, [&](int64_t i, int n) { store_some(grad_v + i, load_some(grad_delta + i, n) * beta, n); });
  const float grad_beta = row_sum(dim, [&](Vec partial, int64_t i, int n) {
    return fma(load_some(grad_delta + i, n), load_some(missing + i, n), partial);
  });
  store_partial(row_of<T>(args.grad_b, row) + head, splat(grad_beta) * (beta * (splat(1.0f) - beta)), 1);
}

template <class T>
void grad_row(const GatedDeltaBackwardArgs& args, int64_t row) {
  const int64_t group = args.value_heads / args.key_heads;
  for (int64_t first = 0; first < args.value_heads; first += group) {
    float grad_q[most_dim] = {}, grad_k[most_dim] = {};
    for (int64_t head = first; head < first + group; ++head) {
      add_head(args, row, head, grad_q, grad_k);
      grad_values<T>(args, row, head);
    }
    const T* const qkv = row_of<T>(args.qkv, row);
    T* const to = row_of<T>(args.grad_qkv, row);
    store_grad_of_normed(to + args.q_column(first), qkv + args.q_column(first), grad_q, args.key_dim,
                         q_scale(args.key_dim));
    store_grad_of_normed(to + args.k_column(first), qkv + args.k_column(first), grad_k, args.key_dim, 1.0f);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void gated_delta_grad_rows(GatedDeltaBackwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = begin; row < end; ++row) grad_row<T>(args, row);
  });
}
template void gated_delta_grad_rows<Isa::LATHE_ISA>(GatedDeltaBackwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
