// S's gradient (state.cuh).
#include "kernels/gated_delta/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace gated_delta;

// From the last token to the first.
template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    gated_delta_grad_state_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  struct Stages {
    Stage<dim> at[2];
  };
  Stages& stages = block_shared<Stages>();
  const int s = static_cast<int>(blockIdx.z);
  const Place place = place_of_block(a, first_sequence + s, bounds.at[s], bounds.at[s + 1]);
  const int rows = static_cast<int>(a.key_dim), columns = static_cast<int>(a.value_dim);
  Part<dim> grad;
  grad.clear();
  Token<T, dim> token;
  const auto fetch = [&](int64_t row) {
    if (row >= place.begin && row < place.end)
      token.fetch(a, place.head, row, row_of<T>(a.grad_out, row) + place.head * a.value_dim + place.first_column,
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
    if (at_chunk_bound(place, first + here))
      grad.store(a.work.chunk_grad_states + matrix_of(a, chunk_of(place, first), place.head) + place.column(), rows,
                 columns);
    Pair kept{};  // of the token that the sharer stores
    for (int t = here - 1; t >= 0; --t) {
      const Pair grad_out = load_pair(&stage.columns[t][column_in_block()]);
      Chains chains;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four k = rows_of<dim>(stage.k[t], m), q = rows_of<dim>(stage.q[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = grad.at[m][c][e];
            element = fmaf(q.at[e], grad_out.at[c], element);
            chains.at[c][e] = fmaf(k.at[e], element, chains.at[c][e]);
          }
        }
      }
      const Pair grad_delta = chains.sum(), grad_found = -stage.gates[t].beta * grad_delta;
      if (sharer() == t) kept = grad_delta;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four k = rows_of<dim>(stage.k[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = grad.at[m][c][e];
            element = stage.gates[t].gamma * fmaf(k.at[e], grad_found.at[c], element);
          }
        }
      }
    }
    if (sharer() < here)
      store_pair(a.work.grad_delta + values_of(a, first + sharer(), place.head) + place.column(), kept);
  }
}

template <class T>
void launch_all(const GatedDeltaBackwardArgs& a) {
  with_room(a.key_dim, [&]<int dim>() {
    for_each_counted_launch(a.cu_seqlens, a.sequences, [&](int64_t first, const SequenceBounds& bounds) {
      launch(config_of("gated_delta_grad_state", blocks_for(a.value_dim, block_columns), a.value_heads, bounds.count),
             gated_delta_grad_state_kernel<T, dim>, a, first, bounds);
    });
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_delta_grad_state_all(const GatedDeltaBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { launch_all<T>(args); });
}
template void gated_delta_grad_state_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaBackwardArgs&);

}  // namespace lathe::kernels
