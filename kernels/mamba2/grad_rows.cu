// The gradients of B and C, of what parts of a group's heads gave, and those of the weights, of what chunks gave.
#include "kernels/mamba2/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2 {
namespace {

// A thread for each number of B (blockIdx.y 0) or C of a row.
template <class T>
__global__ void __launch_bounds__(threads) mamba2_grad_rows_kernel(Mamba2BackwardArgs a) {
  const int64_t numbers = a.groups * a.state_size, item = int64_t{blockIdx.x} * threads + threadIdx.x;
  const int64_t row = item / numbers, column = item % numbers;
  if (row >= a.rows) return;
  const int64_t parts = mamba2_parts_of_group(a.heads_of_group()), group = column / a.state_size;
  const float* const from = (blockIdx.y == 0 ? a.work.grad_b : a.work.grad_c) +
                            (row * a.parts() + group * parts) * a.state_size + column % a.state_size;
  float sum = from[0];
  for (int64_t part = 1; part < parts; ++part) sum += from[part * a.state_size];
  row_of<T>(a.grad_xbc, row)[(blockIdx.y == 0 ? a.b_column(0) : a.c_column(0)) + column] = from_float<T>(sum);
}

// A thread for each head, blockIdx.y being the weight.
__global__ void __launch_bounds__(threads)
    mamba2_weight_gradient_kernel(Mamba2BackwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  const int64_t head = int64_t{blockIdx.x} * threads + threadIdx.x;
  const int which = static_cast<int>(blockIdx.y);
  float* const gradient = which == 0 ? a.grad_weights[0] : which == 1 ? a.grad_weights[1] : a.grad_weights[2];
  if (head >= a.heads || gradient == nullptr) return;
  float total = gradient[head];
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t rows = bounds.at[s + 1] - bounds.at[s], chunks = (rows + token_chunk - 1) / token_chunk;
    const int64_t first = first_token_chunk(first_sequence + s, bounds.at[s]);
    float sum = 0.0f;
    for (int64_t chunk = first; chunk < first + chunks; ++chunk)
      sum += a.work.chunk_sums[(chunk * a.heads + head) * 3 + which];
    total += sum;
  }
  gradient[head] = total;
}

template <class T>
void launch_grad_rows(const Mamba2BackwardArgs& a) {
  launch(config_of("mamba2_grad_rows", blocks_for(a.rows * a.groups * a.state_size, threads), 2),
         mamba2_grad_rows_kernel<T>, a);
  if (a.grad_weights[0] == nullptr && a.grad_weights[1] == nullptr && a.grad_weights[2] == nullptr) return;
  for_each_counted_launch(a.cu_seqlens, a.sequences, [&](int64_t first, const SequenceBounds& bounds) {
    launch(config_of("mamba2_weight_gradient", blocks_for(a.heads, threads), 3), mamba2_weight_gradient_kernel, a,
           first, bounds);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2

namespace lathe::kernels {

template <DeviceKind>
void mamba2_grad_rows_all(const Mamba2BackwardArgs& args) {
  LATHE_CUDA_NAMESPACE::with_element(args.dtype,
                                     [&]<class T>(T) { LATHE_CUDA_NAMESPACE::mamba2::launch_grad_rows<T>(args); });
}
template void mamba2_grad_rows_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const Mamba2BackwardArgs&);

}  // namespace lathe::kernels
