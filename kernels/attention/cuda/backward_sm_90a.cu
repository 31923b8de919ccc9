// The two passes of attention_backward by wgmma (sm_90a), for bf16 and f16 and D of 64, 96 or 128
// (backward_warpgroups.cuh): consuming warpgroups own 64 rows each. While one makes weights of its scores, the others
// multiply. D = 256 is backward_wide_sm_90a.cu's.
#include "kernels/attention/cuda/backward_warpgroups.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

// Head size, consuming warpgroups and stages of what passes by.
template <class T_, int head_size, int consumers_, int stages_>
struct WarpgroupGradients {
  using T = T_;
  static constexpr int D = head_size, consumers = consumers_, stages = stages_;
  static constexpr int own = 64 * consumers, step = 64, warp_rows = 16;
  static constexpr int threads = 128 * (1 + consumers), consuming_warps = 4 * consumers;
  using Registers = RegisterSplit<consumers, consumers == 2 ? 24 : 32, consumers == 2 ? 240 : 160>;

  using Scores = Accumulator<warp_rows, step>;
  using Weights = LeftOperand<T, warp_rows, step>;
  using Gradient = Accumulator<warp_rows, D>;
  using OwnTile = PaddedTile<T, own, D>;
  using OwnPanels = HeadPanels<T, own, D>;
  using PassingPanels = HeadPanels<T, step, D>;
  struct Memory {
    OwnPanels own[2];  // keys and values; queries and grad_out
    struct Stage {
      PassingPanels at[2];  // the others
    } stages[stages_];
    OwnTile through;  // gradients on their way out
    float2 terms[stages_][step];
    MBarrier own_full;
    SequencePipeline<stages_> pipeline;

    __device__ __forceinline__ void init() {
      mbarrier_init(own_full, 1);
      pipeline.init(consuming_warps);
    }
  };
  static constexpr unsigned own_bytes = 2 * OwnPanels::bytes, stage_bytes = 2 * PassingPanels::bytes;
  using Resources = BlockResources<threads, 1, static_cast<int>(sizeof(Memory)), Cards::sm_90a>;

  // The consuming warp's first row of the block's, and its warpgroup's: the same in all lanes, as the compiler is told.
  static __device__ __forceinline__ int warp_row() {
    return (__shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 32, 0) - 4) * warp_rows;
  }
  static __device__ __forceinline__ int warpgroup_row() { return (warpgroup_of_block() - 1) * 64; }
};

// While P is found, v·grad_out is computed, and P·grad_out while dS is.
template <class Shape, Cap cap>
__device__ __forceinline__ void consume_queries(typename Shape::Memory& memory, const Gradients<typename Shape::T>& a,
                                                const SequencePiece& piece, int kv_head, const PassingSteps& steps) {
  const int row = Shape::warpgroup_row(), window = a.rule.window, first_key = piece.index * Shape::own;
  const Span own = warp_span<Shape>(first_key, piece.length);
  const Span of_warpgroup = rows_span(first_key + row, 64, piece.length);
  float grad_k[Shape::D / 2] = {}, grad_v[Shape::D / 2] = {};
  RingPlace<Shape::stages> place;
  mbarrier_wait(memory.own_full, 0);
  for (int head = 0; head < a.group; ++head) {
    for (int n = steps.begin; n < steps.end; ++n, place.advance()) {
      const auto& passing = memory.stages[place.stage];
      memory.pipeline.wait_until_full(place);
      if (some_seen(step_rows<Shape>(n), of_warpgroup, window)) {
        const auto terms = [&](int column) {
          const float2 both = memory.terms[place.stage][column];
          return RowTerms{both.x, both.y};
        };
        const KeysMeetQueries<decltype(terms)> pairs{own, step_rows<Shape>(n), window, terms};
        Products<Shape> s, ds;
        typename Shape::Scores p, gradient;
        wgmma_fence();
        queue_transposed(s, memory.own[0], row, passing.at[0]);
        queue_transposed(ds, memory.own[1], row, passing.at[1]);
        wgmma_wait<1>(s);
        weigh<Shape, cap>(p, gradient, s, ds, a.rule, pairs);
        const typename Shape::Weights weights(p, nullptr);
        wgmma_fence();
        queue_weighted<Onto::sums>(grad_v, weights, passing.at[1]);
        if constexpr (cap == Cap::none) {
          wgmma_wait<1>(ds);
          take<Shape>(gradient, ds);
          uncapped_gradients(gradient, p, pairs);
        }
        const typename Shape::Weights gradients(gradient, nullptr);
        wgmma_fence();
        queue_weighted<Onto::sums>(grad_k, gradients, passing.at[0]);
        wgmma_wait<0>(grad_v);
        wgmma_wait<0>(grad_k);
        done_with(weights);
        done_with(gradients);
        __syncwarp();  // all lanes have read the terms
      }
      memory.pipeline.release(place.stage);
    }
  }
  const int64_t token = piece.start + own.first;
  const int count = own.last - own.first + 1;
  store_sums<Shape>(grad_k, a.scale, memory.through, a.grad_k, token, kv_head, count);
  store_sums<Shape>(grad_v, 1.0f, memory.through, a.grad_v, token, kv_head, count);
}

// While P is found, grad_out·v is computed, and the next step's scores while dS is.
template <class Shape, Cap cap>
__device__ __forceinline__ void consume_keys(typename Shape::Memory& memory, const Gradients<typename Shape::T>& a,
                                             const SequencePiece& piece, int head, const PassingSteps& steps) {
  const int row = Shape::warpgroup_row(), window = a.rule.window, first_query = piece.index * Shape::own;
  const Span own = warp_span<Shape>(first_query, piece.length);
  const Span of_warpgroup = rows_span(first_query + row, 64, piece.length);
  RingPlace<Shape::stages> place;
  const auto leave_out = [&](int count) {  // steps in which none of the warpgroup's queries sees anything
    for (; count > 0; --count, place.advance()) {
      memory.pipeline.wait_until_full(place);
      memory.pipeline.release(place.stage);
    }
  };
  if (of_warpgroup.first > of_warpgroup.last) return leave_out(steps.end - steps.begin);
  const PassingSteps seen = key_steps<Shape::step>(of_warpgroup, window);
  RowValues<Shape::warp_rows, RowTerms> own_terms;
  load_own_terms(own_terms, a, piece, own, head);
  mbarrier_wait(memory.own_full, 0);
  leave_out(seen.begin - steps.begin);

  float grad_q[Shape::D / 2] = {};
  Products<Shape> s;
  memory.pipeline.wait_until_full(place);
  wgmma_fence();
  queue_transposed(s, memory.own[0], row, memory.stages[place.stage].at[0]);
  wgmma_wait<0>(s);
  for (int n = seen.begin; n < seen.end; ++n) {
    const auto& passing = memory.stages[place.stage];
    const QueriesMeetKeys<Shape::warp_rows> pairs{own, step_rows<Shape>(n), window, own_terms};
    Products<Shape> ds;
    typename Shape::Scores p, gradient;
    wgmma_fence();
    queue_transposed(ds, memory.own[1], row, passing.at[1]);
    weigh<Shape, cap>(p, gradient, s, ds, a.rule, pairs);
    RingPlace<Shape::stages> next = place;
    next.advance();
    if (n + 1 < seen.end) {
      memory.pipeline.wait_until_full(next);
      wgmma_fence();
      queue_transposed(s, memory.own[0], row, memory.stages[next.stage].at[0]);
      if constexpr (cap == Cap::none) wgmma_wait<1>(ds);
    } else {
      if constexpr (cap == Cap::none) wgmma_wait<0>(ds);
    }
    if constexpr (cap == Cap::none) {
      take<Shape>(gradient, ds);
      uncapped_gradients(gradient, p, pairs);
    }
    const typename Shape::Weights gradients(gradient, nullptr);
    wgmma_fence();
    queue_weighted<Onto::sums>(grad_q, gradients, passing.at[0]);
    wgmma_wait<0>(s);
    wgmma_wait<0>(grad_q);
    done_with(gradients);
    memory.pipeline.release(place.stage);
    place = next;
  }
  leave_out(steps.end - seen.end);
  store_sums<Shape>(grad_q, a.scale, memory.through, a.grad_q, piece.start + own.first, head, own.last - own.first + 1);
}

// ---- kernels ----

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_key_gradient_warpgroup_kernel(Resources, const __grid_constant__ Inputs inputs,
                                            Gradients<typename Shape::T> a, Sequences sequences) {
  key_gradient_block<Shape>(inputs, a, sequences, [&](auto& memory, const auto& piece, int kv_head, const auto& steps) {
    a.rule.cap > 0 ? consume_queries<Shape, Cap::some>(memory, a, piece, kv_head, steps)
                   : consume_queries<Shape, Cap::none>(memory, a, piece, kv_head, steps);
  });
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_query_gradient_warpgroup_kernel(Resources, const __grid_constant__ Inputs inputs,
                                              Gradients<typename Shape::T> a, Sequences sequences) {
  query_gradient_block<Shape>(inputs, a, sequences, [&](auto& memory, const auto& piece, int head, const auto& steps) {
    a.rule.cap > 0 ? consume_keys<Shape, Cap::some>(memory, a, piece, head, steps)
                   : consume_keys<Shape, Cap::none>(memory, a, piece, head, steps);
  });
}

template <class Shape>
void gradients(const AttentionBackwardCuda& args) {
  launch_passes<Shape>(args, attention_key_gradient_warpgroup_kernel<Shape>,
                       attention_query_gradient_warpgroup_kernel<Shape>);
}

// All instances: two dtypes times three head sizes.
template <class T>
void choose(const AttentionBackwardCuda& args) {
  switch (args.head_dim) {
    case 64: return gradients<WarpgroupGradients<T, 64, 3, 6>>(args);
    case 96: return gradients<WarpgroupGradients<T, 96, 2, 4>>(args);
    default: return gradients<WarpgroupGradients<T, 128, 2, 3>>(args);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool attention_takes_warpgroups(const AttentionBackwardCuda& args) {
  const auto served = [&](const HeadRows& rows, int64_t heads) {
    return flash::bulk_copies_serve(rows, args.cu_seqlens[args.sequences], heads, args.head_dim);
  };
  return args.dtype != DType::f32 && flash::warpgroups_take_head(args.head_dim) && runs_sm_90a() &&
         served(args.q, args.heads) && served(args.grad_out, args.heads) && served(args.k, args.kv_heads) &&
         served(args.v, args.kv_heads);
}
template bool attention_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionBackwardCuda&);

template <DeviceKind>
void attention_backward_warpgroups(const AttentionBackwardCuda& args) {
  if (args.head_dim == 256) return attention_backward_wide_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(args);
  args.dtype == DType::bf16 ? choose<bf16_t>(args) : choose<f16_t>(args);
}
template void attention_backward_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionBackwardCuda&);

}  // namespace lathe::kernels
