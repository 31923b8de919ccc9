// The forward and a step (state.cuh).
#include "kernels/mamba2/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2 {
namespace {

// S_t = γ S_{t−1} + B vᵀ, and its product with C.
template <int dim>
__device__ __forceinline__ Pair advance(Part<dim>& state, const Stage<dim>& stage, int t, const Pair& v) {
  const float gamma = stage.steps[t].gamma;
  Chains out;
  LATHE_UNROLL
  for (int m = 0; m < Part<dim>::fours; ++m) {
    const Four b = rows_of<dim>(stage.b[t], m), c = rows_of<dim>(stage.c[t], m);
    LATHE_UNROLL
    for (int i = 0; i < lane_columns; ++i) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& element = state.at[m][i][e];
        element = fmaf(b.at[e], v.at[i], gamma * element);
        out.at[i][e] = fmaf(c.at[e], element, out.at[i][e]);
      }
    }
  }
  return out.sum();
}

template <class T, int dim>
__device__ __forceinline__ void forward(const Mamba2ForwardArgs& a, const Place& place, float* own, bool begins) {
  struct Stages {
    Stage<dim> at[2];
  };
  Stages& stages = block_shared<Stages>();
  const int rows = static_cast<int>(a.state_size), columns = static_cast<int>(a.head_dim);
  const float skip = number_of<T>(a.D, place.head);
  Part<dim> state;
  if (begins || !place.has_columns()) {
    state.clear();
  } else {
    state.load(own + place.column(), rows, columns);
  }
  Token<T, dim> token;
  const auto fetch = [&](int64_t row) {
    if (row < place.end)
      token.fetch(a, place.head, row, row_of<T>(a.xbc, row) + a.x_column(place.head) + place.first_column,
                  place.columns);
  };
  fetch(place.begin + warp());
  for (int64_t first = place.begin; first < place.end; first += stage_tokens) {
    Stage<dim>& stage = stages.at[(first - place.begin) / stage_tokens % 2];
    if (first + warp() < place.end) token.put(a, place.head, stage, place.columns);
    __syncthreads();  // the stage is there, and all have left the one before, which is filled next
    fetch(first + stage_tokens + warp());
    if (!place.has_columns()) continue;
    if (a.chunk_states != nullptr && place.at_chunk_bound(first))
      state.store(a.chunk_states + a.matrix_of_head(place.chunk_of(first), place.head) + place.column(), rows, columns);
    const int here = place.end - first < stage_tokens ? static_cast<int>(place.end - first) : stage_tokens;
    Pair kept{};  // of the token that the sharer stores
    for (int t = 0; t < here; ++t) {
      const Pair x = load_pair(&stage.columns[t][column_in_block()]);
      const Pair out = advance(state, stage, t, stage.steps[t].step * x);
      if (sharer() == t) kept = {{fmaf(skip, x.at[0], out.at[0]), fmaf(skip, x.at[1], out.at[1])}};
    }
    if (sharer() >= here || a.out.data == nullptr) continue;
    T* const out = row_of<T>(a.out, first + sharer()) + place.head * a.head_dim + place.column();
    LATHE_UNROLL
    for (int i = 0; i < lane_columns; ++i) out[i] = from_float<T>(kept.at[i]);
  }
  if (own != nullptr && place.has_columns()) state.store(own + place.column(), rows, columns);
}

template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    mamba2_forward_kernel(Mamba2ForwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  const int s = static_cast<int>(blockIdx.z);
  forward<T, dim>(a, place_of_block(a, first_sequence + s, bounds.at[s], bounds.at[s + 1]), nullptr, true);
}

template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim)) mamba2_step_kernel(Mamba2ForwardArgs a) {
  const int64_t s = blockIdx.z, begin = a.bounds[s], end = a.bounds[s + 1];
  if (begin == end) return;
  forward<T, dim>(a, place_of_block(a, s, begin, end), a.states + a.matrix_of_head(a.slots[s], blockIdx.y),
                  a.contexts[s] == end - begin);
}

template <class T>
void launch_forward(const Mamba2ForwardArgs& a) {
  const auto grid = [&](const char* name, int64_t sequences) {
    return config_of(name, blocks_for(a.head_dim, block_columns), a.heads, sequences);
  };
  with_room(a.state_size, [&]<int dim>() {
    if (a.states != nullptr) return launch(grid("mamba2_step", a.sequences), mamba2_step_kernel<T, dim>, a);
    for_each_counted_launch(a.bounds, a.sequences, [&](int64_t first, const SequenceBounds& bounds) {
      launch(grid("mamba2_forward", bounds.count), mamba2_forward_kernel<T, dim>, a, first, bounds);
    });
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::mamba2

namespace lathe::kernels {

template <DeviceKind>
void mamba2_forward_all(const Mamba2ForwardArgs& args) {
  LATHE_CUDA_NAMESPACE::with_element(args.dtype,
                                     [&]<class T>(T) { LATHE_CUDA_NAMESPACE::mamba2::launch_forward<T>(args); });
}
template void mamba2_forward_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const Mamba2ForwardArgs&);

}  // namespace lathe::kernels
