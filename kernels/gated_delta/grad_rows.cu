#include "kernels/gated_delta/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace gated_delta;

// Through x̂ = x · scale / √(Σ x² + 1e-6), of a warp's elements lane, lane + 32, …
constexpr int most_elements = most_gated_delta_dim / 32;
template <class T>
__device__ __forceinline__ void store_grad_of_normed(T* to, const T* x, const float (&gradient)[most_elements], int dim,
                                                     float scale) {
  float elements[most_elements], squares = 0.0f, along = 0.0f;
  LATHE_UNROLL
  for (int j = 0; j < most_elements; ++j) {
    const int i = j * 32 + lane();
    elements[j] = i < dim ? to_float(x[i]) : 0.0f;
    squares = fmaf(elements[j], elements[j], squares);
    along = fmaf(elements[j], gradient[j], along);
  }
  const float r = inverse_length(warp_sum(squares)), less = -(warp_sum(along) * r) * r;
  LATHE_UNROLL
  for (int j = 0; j < most_elements; ++j) {
    const int i = j * 32 + lane();
    if (i < dim) to[i] = from_float<T>(scale * r * fmaf(less, elements[j], gradient[j]));
  }
}

// The gradients of q, k, v and b: a warp for each key head of a row.
template <class T>
__global__ void __launch_bounds__(threads, 4) gated_delta_grad_rows_kernel(GatedDeltaBackwardArgs a) {
  const int64_t item = int64_t{blockIdx.x} * warps + warp();
  const int64_t row = item / a.key_heads, group = a.value_heads / a.key_heads;
  if (row >= a.rows) return;
  const int64_t first = item % a.key_heads * group;
  const int key_dim = static_cast<int>(a.key_dim), value_dim = static_cast<int>(a.value_dim);
  const T* const qkv = row_of<T>(a.qkv, row);
  T* const grad_qkv = row_of<T>(a.grad_qkv, row);
  float grad_q[most_elements] = {}, grad_k[most_elements] = {};
  for (int64_t head = first; head < first + group; ++head) {
    const float *const of_q = a.work.grad_q + keys_of(a, row, head), *const of_k =
                                                                         a.work.grad_k + keys_of(a, row, head);
    LATHE_UNROLL
    for (int j = 0; j < most_elements; ++j) {
      const int i = j * 32 + lane();
      if (i >= key_dim) continue;
      grad_q[j] += of_q[i];
      grad_k[j] += of_k[i];
    }
    const int64_t values = values_of(a, row, head);
    const float beta = sigmoid(to_float(row_of<T>(a.b, row)[head]));
    float grad_beta = 0.0f;
    for (int i = lane(); i < value_dim; i += 32) {
      const float grad_delta = a.work.grad_delta[values + i];
      grad_beta = fmaf(grad_delta, a.work.missing[values + i], grad_beta);
      grad_qkv[a.v_column(head) + i] = from_float<T>(beta * grad_delta);
    }
    grad_beta = warp_sum(grad_beta);
    if (lane() == 0) row_of<T>(a.grad_b, row)[head] = from_float<T>(grad_beta * (beta * (1.0f - beta)));
  }
  store_grad_of_normed(grad_qkv + a.q_column(first), qkv + a.q_column(first), grad_q, key_dim, q_scale(a));
  store_grad_of_normed(grad_qkv + a.k_column(first), qkv + a.k_column(first), grad_k, key_dim, 1.0f);
}

template <class T>
void launch_all(const GatedDeltaBackwardArgs& a) {
  launch(config_of("gated_delta_grad_rows", blocks_for(a.rows * a.key_heads, warps)), gated_delta_grad_rows_kernel<T>,
         a);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_delta_grad_rows_all(const GatedDeltaBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { launch_all<T>(args); });
}
template void gated_delta_grad_rows_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaBackwardArgs&);

}  // namespace lathe::kernels
