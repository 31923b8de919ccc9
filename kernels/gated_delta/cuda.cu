// The forward and a step (state.cuh).
#include "kernels/gated_delta/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace gated_delta;

// S_t = γ S_{t−1} + k̂ δᵀ, and its product with q̂.
template <int dim>
__device__ __forceinline__ Pair advance(Part<dim>& state, const Stage<dim>& stage, int t, const Pair& delta) {
  const float gamma = stage.gates[t].gamma;
  Chains out;
  LATHE_UNROLL
  for (int m = 0; m < Part<dim>::fours; ++m) {
    const Four k = rows_of<dim>(stage.k[t], m), q = rows_of<dim>(stage.q[t], m);
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& element = state.at[m][c][e];
        element = fmaf(k.at[e], delta.at[c], gamma * element);
        out.at[c][e] = fmaf(q.at[e], element, out.at[c][e]);
      }
    }
  }
  return out.sum();
}

template <class T, int dim>
__device__ __forceinline__ void forward(const GatedDeltaForwardArgs& a, const Place& place, float* own, bool begins) {
  struct Stages {
    Stage<dim> at[2];
  };
  Stages& stages = block_shared<Stages>();
  const int rows = static_cast<int>(a.key_dim), columns = static_cast<int>(a.value_dim);
  Part<dim> state;
  if (begins || !place.has_columns()) {
    state.clear();
  } else {
    state.load(own + place.column(), rows, columns);
  }
  Token<T, dim> token;
  const auto fetch = [&](int64_t row) {
    if (row < place.end)
      token.fetch(a, place.head, row, row_of<T>(a.qkv, row) + a.v_column(place.head) + place.first_column,
                  place.columns);
  };
  fetch(place.begin + warp());
  for (int64_t first = place.begin; first < place.end; first += stage_tokens) {
    Stage<dim>& stage = stages.at[(first - place.begin) / stage_tokens % 2];
    if (first + warp() < place.end) token.put(a, place.head, stage, place.columns);
    __syncthreads();  // the stage is there, and all have left the one before, which is filled next
    fetch(first + stage_tokens + warp());
    if (!place.has_columns()) continue;
    if (a.chunk_states != nullptr && at_chunk_bound(place, first))
      state.store(a.chunk_states + matrix_of(a, chunk_of(place, first), place.head) + place.column(), rows, columns);
    const int here = place.end - first < stage_tokens ? static_cast<int>(place.end - first) : stage_tokens;
    Pair kept_out{}, kept_missing{};  // of the token that the sharer stores
    for (int t = 0; t < here; ++t) {
      const Pair v = load_pair(&stage.columns[t][column_in_block()]), found = product_with_rows(state, stage.k[t]);
      Pair missing;
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) missing.at[c] = fmaf(-stage.gates[t].gamma, found.at[c], v.at[c]);
      const Pair out = advance(state, stage, t, stage.gates[t].beta * missing);
      if (sharer() == t) kept_out = out, kept_missing = missing;
    }
    if (sharer() >= here) continue;
    const int64_t row = first + sharer();
    if (a.missing != nullptr) store_pair(a.missing + values_of(a, row, place.head) + place.column(), kept_missing);
    if (a.out.data == nullptr) continue;
    T* const out = row_of<T>(a.out, row) + place.head * a.value_dim + place.column();
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c) out[c] = from_float<T>(kept_out.at[c]);
  }
  if (own != nullptr && place.has_columns()) state.store(own + place.column(), rows, columns);
}

template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    gated_delta_forward_kernel(GatedDeltaForwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  const int s = static_cast<int>(blockIdx.z);
  forward<T, dim>(a, place_of_block(a, first_sequence + s, bounds.at[s], bounds.at[s + 1]), nullptr, true);
}

template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim)) gated_delta_step_kernel(GatedDeltaForwardArgs a) {
  const int64_t s = blockIdx.z, begin = a.bounds[s], end = a.bounds[s + 1];
  if (begin == end) return;
  forward<T, dim>(a, place_of_block(a, s, begin, end), a.states + matrix_of(a, a.slots[s], blockIdx.y),
                  a.contexts[s] == end - begin);
}

template <class T>
void launch_all(const GatedDeltaForwardArgs& a) {
  const auto grid = [&](const char* name, int64_t sequences) {
    return config_of(name, blocks_for(a.value_dim, block_columns), a.value_heads, sequences);
  };
  with_room(a.key_dim, [&]<int dim>() {
    if (a.states != nullptr) return launch(grid("gated_delta_step", a.sequences), gated_delta_step_kernel<T, dim>, a);
    for_each_counted_launch(a.bounds, a.sequences, [&](int64_t first, const SequenceBounds& bounds) {
      launch(grid("gated_delta_forward", bounds.count), gated_delta_forward_kernel<T, dim>, a, first, bounds);
    });
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_delta_forward_all(const GatedDeltaForwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { launch_all<T>(args); });
}
template void gated_delta_forward_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaForwardArgs&);

}  // namespace lathe::kernels
