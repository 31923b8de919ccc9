// S's gradient (state.cuh).
#include "kernels/mamba2/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2 {
namespace {

// From the last token to the first.
template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    mamba2_grad_state_kernel(Mamba2BackwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  struct Stages {
    Stage<dim> at[2];
  };
  Stages& stages = block_shared<Stages>();
  const int s = static_cast<int>(blockIdx.z);
  const Place place = place_of_block(a, first_sequence + s, bounds.at[s], bounds.at[s + 1]);
  const int rows = static_cast<int>(a.state_size), columns = static_cast<int>(a.head_dim);
  Part<dim> grad;
  grad.clear();
  Token<T, dim> token;
  const auto fetch = [&](int64_t row) {
    if (row >= place.begin && row < place.end)
      token.fetch(a, place.head, row, row_of<T>(a.grad_out, row) + place.head * a.head_dim + place.first_column,
                  place.columns);
  };
  const int64_t last = place.begin + (place.end - place.begin - 1) / stage_tokens * stage_tokens;
  fetch(last + warp());
  for (int64_t first = last; first >= place.begin && first < place.end; first -= stage_tokens) {
    Stage<dim>& stage = stages.at[(first - place.begin) / stage_tokens % 2];
    if (first + warp() < place.end) token.put(a, place.head, stage, place.columns);
    __syncthreads();  // the stage is there, and all have left the one before, which is filled next
    fetch(first - stage_tokens + warp());
    if (!place.has_columns()) continue;
    const int here = place.end - first < stage_tokens ? static_cast<int>(place.end - first) : stage_tokens;
    if (place.at_chunk_bound(first + here))
      grad.store(a.work.chunk_grad_states + a.matrix_of_head(place.chunk_of(first), place.head) + place.column(), rows,
                 columns);
    for (int t = here - 1; t >= 0; --t) {
      const Pair grad_out = load_pair(&stage.columns[t][column_in_block()]);
      const float gamma = stage.steps[t].gamma;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four c = rows_of<dim>(stage.c[t], m);
        LATHE_UNROLL
        for (int i = 0; i < lane_columns; ++i) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = grad.at[m][i][e];
            element = gamma * fmaf(c.at[e], grad_out.at[i], element);
          }
        }
      }
    }
  }
}

template <class T>
void launch_grad_state(const Mamba2BackwardArgs& a) {
  with_room(a.state_size, [&]<int dim>() {
    for_each_counted_launch(a.cu_seqlens, a.sequences, [&](int64_t first, const SequenceBounds& bounds) {
      launch(config_of("mamba2_grad_state", blocks_for(a.head_dim, block_columns), a.heads, bounds.count),
             mamba2_grad_state_kernel<T, dim>, a, first, bounds);
    });
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2

namespace lathe::kernels {

template <DeviceKind>
void mamba2_grad_state_all(const Mamba2BackwardArgs& args) {
  LATHE_CUDA_NAMESPACE::with_element(args.dtype,
                                     [&]<class T>(T) { LATHE_CUDA_NAMESPACE::mamba2::launch_grad_state<T>(args); });
}
template void mamba2_grad_state_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const Mamba2BackwardArgs&);

}  // namespace lathe::kernels
