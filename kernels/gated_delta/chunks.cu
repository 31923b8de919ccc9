// The gradients of q̂ and k̂, and what γ's is made of at a chunk's bounds (state.cuh).
#include "kernels/cuda/token_chunk_rows.cuh"
#include "kernels/gated_delta/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace gated_delta;

// What the chunks' blocks have of four tokens: the rows of S that a block has of q̂ and k̂, and along Dv what the token
// adds to S and to its gradient.
template <int dim>
struct ChunkStage {
  float q[stage_tokens][block_columns], k[stage_tokens][block_columns];
  float delta[stage_tokens][dim], grad_found[stage_tokens][dim], grad_out[stage_tokens][dim];
  float gamma[stage_tokens];
};

// A warp's token. Many blocks are there at a time, so nothing is fetched before it is wanted.
template <class T, int dim>
__device__ __forceinline__ void load_chunk_token(const GatedDeltaBackwardArgs& a, int64_t head, int64_t row,
                                                 int first_row, ChunkStage<dim>& stage) {
  const T* const qkv = row_of<T>(a.qkv, row);
  const auto load_normed = [&](int64_t column, float scale, float* to) {
    float squares = 0.0f;
    for (int i = lane(); i < a.key_dim; i += 32) {
      const float x = to_float(qkv[column + i]);
      squares = fmaf(x, x, squares);
    }
    const float factor = inverse_length(warp_sum(squares)) * scale;
    const int i = first_row + lane();
    to[lane()] = i < a.key_dim ? to_float(qkv[column + i]) * factor : 0.0f;
  };
  load_normed(a.q_column(head), q_scale(a), stage.q[warp()]);
  load_normed(a.k_column(head), 1.0f, stage.k[warp()]);
  const Gates gates = gates_of<T>(a, head, row_of<T>(a.a, row)[head], row_of<T>(a.b, row)[head]);
  if (lane() == 0) stage.gamma[warp()] = gates.gamma;
  const int64_t values = values_of(a, row, head);
  const T* const grad_out = row_of<T>(a.grad_out, row) + head * a.value_dim;
  for (int i = lane(); i < dim; i += 32) {
    const bool inside = i < a.value_dim;
    stage.delta[warp()][i] = inside ? gates.beta * a.work.missing[values + i] : 0.0f;
    stage.grad_found[warp()][i] = inside ? -gates.beta * a.work.grad_delta[values + i] : 0.0f;
    stage.grad_out[warp()][i] = inside ? to_float(grad_out[i]) : 0.0f;
  }
}

// A block has 32 rows of S, a lane two of them: its columns, in the words of Part, whose rows are S's columns.
template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    gated_delta_chunk_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence, int64_t first_chunk,
                             SequenceBounds bounds) {
  ChunkStage<dim>& stage = block_shared<ChunkStage<dim>>();
  const int64_t chunk = first_chunk + blockIdx.z, head = blockIdx.y;
  const ChunkRows rows = rows_of_chunk(bounds, first_sequence, chunk);
  if (rows.begin == rows.end) return;
  const int first_row = static_cast<int>(blockIdx.x) * block_columns, own = first_row + column_in_block();
  const bool has_rows = own < a.key_dim;
  const int64_t matrix = matrix_of(a, chunk, head) + int64_t{own} * a.value_dim;
  // visit(m, c, four) for a lane's elements of a matrix.
  const auto each_four = [&](const float* from, const auto& visit) {
    LATHE_UNROLL
    for (int m = 0; m < Part<dim>::fours; ++m) {
      if (Part<dim>::row(m) >= a.value_dim) continue;
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) visit(m, c, load_four(from + c * a.value_dim + Part<dim>::row(m)));
    }
  };
  const auto load_stage = [&](int64_t first) {
    __syncthreads();  // all have left the stage before
    if (first + warp() < rows.end) load_chunk_token<T, dim>(a, head, first + warp(), first_row, stage);
    __syncthreads();  // the stage is there
    return rows.end - first < stage_tokens ? static_cast<int>(rows.end - first) : stage_tokens;
  };

  // number(t), a sum over the lane's rows, of each token: stored for the warp's eight rows.
  const auto multiply_tokens = [&](float* to, const auto& number) {
    for (int64_t first = rows.begin; first < rows.end; first += stage_tokens) {
      const int here = load_stage(first);
      if (!has_rows) continue;
      float kept = 0.0f;
      for (int t = 0; t < here; ++t) {
        float sum = number(t);
        LATHE_UNROLL
        for (int apart = sharers; apart < 32; apart *= 2) sum += __shfl_xor_sync(full_warp, sum, apart);
        if (sharer() == t) kept = sum;
      }
      if (lane() < here) to[keys_of(a, first + lane(), head) / 8 + own / 8] = kept;
    }
  };

  Part<dim> state;
  state.clear();
  if (has_rows && !rows.is_first)
    each_four(a.work.chunk_states + matrix, [&](int m, int c, const Four& four) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) state.at[m][c][e] = four.at[e];
    });
  if (!rows.is_first)
    multiply_tokens(a.work.of_state, [&](int t) {
      const Pair with_out = product_with_rows(state, stage.grad_out[t]),
                 with_found = product_with_rows(state, stage.grad_found[t]);
      const Pair q = load_pair(&stage.q[t][column_in_block()]), k = load_pair(&stage.k[t][column_in_block()]);
      return dot(q, with_out) + dot(k, with_found);
    });
  for (int64_t first = rows.begin; first < rows.end; first += stage_tokens) {
    const int here = load_stage(first);
    if (!has_rows) continue;
    Pair kept_q{}, kept_k{};  // of the token that the sharer stores
    for (int t = 0; t < here; ++t) {
      const Pair k = load_pair(&stage.k[t][column_in_block()]);
      const float gamma = stage.gamma[t];
      Chains of_q, of_k;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four delta = rows_of<dim>(stage.delta[t], m), grad_found = rows_of<dim>(stage.grad_found[t], m),
                   grad_out = rows_of<dim>(stage.grad_out[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = state.at[m][c][e];
            const float decayed = gamma * element;
            of_k.at[c][e] = fmaf(grad_found.at[e], decayed, of_k.at[c][e]);
            element = fmaf(delta.at[e], k.at[c], decayed);
            of_q.at[c][e] = fmaf(grad_out.at[e], element, of_q.at[c][e]);
          }
        }
      }
      const Pair grad_q = of_q.sum(), grad_k = of_k.sum();
      if (sharer() == t) kept_q = grad_q, kept_k = grad_k;
    }
    if (sharer() >= here) continue;
    const int64_t keys = keys_of(a, first + sharer(), head) + own;
    store_pair(a.work.grad_q + keys, kept_q);
    store_pair(a.work.grad_k + keys, kept_k);
  }

  state.clear();
  if (has_rows && !rows.is_last)
    each_four(a.work.chunk_grad_states + matrix, [&](int m, int c, const Four& four) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) state.at[m][c][e] = four.at[e];
    });
  if (has_rows && !rows.is_last && !rows.is_first) {
    Chains products;
    each_four(a.work.chunk_states + matrix, [&](int m, int c, const Four& four) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) products.at[c][e] = fmaf(state.at[m][c][e], four.at[e], products.at[c][e]);
    });
    const Pair sums = products.sum();
    if (sharer() == 0) store_pair(a.work.bounds_product + keys_of(a, chunk, head) + own, sums);
  }
  if (!rows.is_last)
    multiply_tokens(a.work.of_grad_state, [&](int t) {
      return dot(load_pair(&stage.k[t][column_in_block()]), product_with_rows(state, stage.delta[t]));
    });
  const int64_t last = rows.begin + (rows.end - rows.begin - 1) / stage_tokens * stage_tokens;
  for (int64_t first = last; first >= rows.begin; first -= stage_tokens) {
    const int here = load_stage(first);
    if (!has_rows) continue;
    Pair kept{};
    for (int t = here - 1; t >= 0; --t) {
      const Pair k = load_pair(&stage.k[t][column_in_block()]), q = load_pair(&stage.q[t][column_in_block()]);
      const float gamma = stage.gamma[t];
      Chains chains;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four delta = rows_of<dim>(stage.delta[t], m), grad_found = rows_of<dim>(stage.grad_found[t], m),
                   grad_out = rows_of<dim>(stage.grad_out[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = state.at[m][c][e];
            element = fmaf(grad_out.at[e], q.at[c], element);
            chains.at[c][e] = fmaf(delta.at[e], element, chains.at[c][e]);
            element = gamma * fmaf(grad_found.at[e], k.at[c], element);
          }
        }
      }
      const Pair grad_k = chains.sum();
      if (sharer() == t) kept = grad_k;
    }
    if (sharer() >= here) continue;
    float* const to = a.work.grad_k + keys_of(a, first + sharer(), head) + own;  // as this lane left it above
    const Pair before = load_pair(to);
    store_pair(to, {{before.at[0] + kept.at[0], before.at[1] + kept.at[1]}});
  }
}

template <class T>
void launch_all(const GatedDeltaBackwardArgs& a) {
  with_room(a.value_dim, [&]<int dim>() {
    for_each_chunk_launch(
        a.cu_seqlens, a.sequences, [&](int64_t sequence, int64_t first, int64_t count, const SequenceBounds& bounds) {
          launch(config_of("gated_delta_chunks", blocks_for(a.key_dim, block_columns), a.value_heads, count),
                 gated_delta_chunk_kernel<T, dim>, a, sequence, first, bounds);
        });
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_delta_chunks_all(const GatedDeltaBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { launch_all<T>(args); });
}
template void gated_delta_chunks_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaBackwardArgs&);

}  // namespace lathe::kernels
