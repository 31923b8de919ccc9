// The two passes of attention_backward by wgmma (sm_90a), for bf16 and f16 and D = 256 (backward_warpgroups.cuh). A
// thread has registers for the sums of one gradient only: two warpgroups share 64 rows and divide the work. One, with
// the scores, hands them on as f32 through shared memory, each warp to the warp that has its rows in the other; that
// one makes dS of them. So no product is computed twice:
//   grad_k, grad_v   scores: q·kᵀ, then Pᵀ·grad_out     gradients: v·grad_outᵀ, then dSᵀ·q
//   grad_q           scores: q·kᵀ                        gradients: grad_out·vᵀ, then dS·k
#include "kernels/attention/cuda/backward_warpgroups.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace flash;

template <class T_>
struct WideGradients {
  using T = T_;
  static constexpr int D = 256, own = 64, step = 64, warp_rows = 16, stages = 2, ahead = 2;
  static constexpr int threads = 384, consuming_warps = 8;
  using Registers = RegisterSplit<2, 24, 240>;

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
    } stages[WideGradients::stages];
    OwnTile through;  // a warp's rows: scores handed to it, of `ahead` steps, and its gradients on their way out
    float2 terms[WideGradients::stages][step];
    MBarrier own_full;
    SequencePipeline<WideGradients::stages> pipeline;
    BulkPipeline<ahead> handed[4];  // scores, of a pair of warps

    __device__ __forceinline__ void init() {
      mbarrier_init(own_full, 1);
      for (auto& pair : handed) pair.init(1);
      pipeline.init(consuming_warps);
    }
  };
  static constexpr unsigned own_bytes = 2 * OwnPanels::bytes, stage_bytes = 2 * PassingPanels::bytes;
  using Resources = BlockResources<threads, 1, static_cast<int>(sizeof(Memory)), Cards::sm_90a>;

  // The consuming warp's first row of the block's, and so its pair: the same in all lanes, as the compiler is told.
  static __device__ __forceinline__ int pair() {
    return __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 32, 0) % 4;
  }
  static __device__ __forceinline__ int warp_row() { return pair() * warp_rows; }
};

// ---- scores from warp to warp ----

// Where a lane's four scores of columns 8 j … lie for the step at `place`.
template <class Shape>
__device__ __forceinline__ float* handed_scores(typename Shape::Memory& memory, RingPlace<Shape::ahead> place, int j) {
  constexpr int floats = Shape::warp_rows * Shape::step;
  static_assert(Shape::ahead * floats * sizeof(float) <= Shape::warp_rows * Shape::OwnTile::pitch * sizeof(uint16_t));
  auto* const room = reinterpret_cast<float*>(memory.through.elements + Shape::warp_row() * Shape::OwnTile::pitch);
  return room + place.stage * floats + (j * 32 + static_cast<int>(threadIdx.x) % 32) * 4;
}
template <class Shape>
__device__ __forceinline__ void hand_on(typename Shape::Memory& memory, RingPlace<Shape::ahead>& place,
                                        const Products<Shape>& s) {
  auto& handed = memory.handed[Shape::pair()];
  handed.wait_until_empty(place);
  LATHE_UNROLL
  for (int j = 0; j < Shape::step / 8; ++j)
    store_vector<float4>(handed_scores<Shape>(memory, place, j),
                         make_float4(s[4 * j], s[4 * j + 1], s[4 * j + 2], s[4 * j + 3]));
  __syncwarp();  // all lanes have stored theirs
  if (threadIdx.x % 32 == 0) mbarrier_arrive(handed.full[place.stage]);
  place.advance();
}
template <class Shape>
__device__ __forceinline__ void receive(Products<Shape>& s, typename Shape::Memory& memory,
                                        RingPlace<Shape::ahead>& place) {
  auto& handed = memory.handed[Shape::pair()];
  handed.wait_until_full(place);
  LATHE_UNROLL
  for (int j = 0; j < Shape::step / 8; ++j) {
    const auto four = load_vector<float4>(handed_scores<Shape>(memory, place, j));
    s[4 * j] = four.x, s[4 * j + 1] = four.y, s[4 * j + 2] = four.z, s[4 * j + 3] = four.w;
  }
  __syncwarp();  // all lanes have read theirs
  handed.release(place.stage);
  place.advance();
}

// ---- a step of either warpgroup ----

template <class Shape>
__device__ __forceinline__ void find_scores(Products<Shape>& s, typename Shape::Memory& memory,
                                            const typename Shape::Memory::Stage& passing,
                                            RingPlace<Shape::ahead>& handed) {
  wgmma_fence();
  queue_transposed(s, memory.own[0], 0, passing.at[0]);
  wgmma_wait<0>(s);
  hand_on<Shape>(memory, handed, s);
}

// While the other product is computed, P is found.
template <class Shape, Cap cap, class Pairs>
__device__ __forceinline__ void add_gradients(float (&sums)[Shape::D / 2], typename Shape::Memory& memory,
                                              const typename Shape::Memory::Stage& passing,
                                              RingPlace<Shape::ahead>& handed, const ScoreRule& rule,
                                              const Pairs& pairs) {
  Products<Shape> s, ds;
  typename Shape::Scores p, gradient;
  wgmma_fence();
  queue_transposed(ds, memory.own[1], 0, passing.at[1]);
  receive<Shape>(s, memory, handed);
  weigh<Shape, cap>(p, gradient, s, ds, rule, pairs);
  if constexpr (cap == Cap::none) {
    wgmma_wait<0>(ds);
    take<Shape>(gradient, ds);
    uncapped_gradients(gradient, p, pairs);
  }
  add_weighted<Shape>(sums, gradient, passing.at[0]);
}

// ---- grad_k and grad_v ----

// What a query brings to its scores, by column of the step.
struct PassingTerms {
  const float2* at;
  __device__ __forceinline__ RowTerms operator()(int column) const { return {at[column].x, at[column].y}; }
};

// Calls each(passing, pairs) with every step's stage there, which is given back after it, and returns the place of a
// stage after the last.
template <class Shape, class Each>
__device__ __forceinline__ RingPlace<Shape::stages> for_each_query_step(typename Shape::Memory& memory,
                                                                        const Gradients<typename Shape::T>& a,
                                                                        const Span& own, const PassingSteps& steps,
                                                                        const Each& each) {
  RingPlace<Shape::stages> place;
  mbarrier_wait(memory.own_full, 0);
  for (int head = 0; head < a.group; ++head) {
    for (int n = steps.begin; n < steps.end; ++n, place.advance()) {
      memory.pipeline.wait_until_full(place);
      const PassingTerms terms{memory.terms[place.stage]};
      each(memory.stages[place.stage], KeysMeetQueries<PassingTerms>{own, step_rows<Shape>(n), a.rule.window, terms});
      __syncwarp();  // all lanes have read the terms
      memory.pipeline.release(place.stage);
    }
  }
  return place;
}

template <class Shape>
__device__ __forceinline__ void value_gradients(typename Shape::Memory& memory, const Gradients<typename Shape::T>& a,
                                                const SequencePiece& piece, int kv_head, const PassingSteps& steps) {
  const Span own = warp_span<Shape>(piece.index * Shape::own, piece.length);
  float grad_v[Shape::D / 2] = {};
  RingPlace<Shape::ahead> handed;
  const auto after = for_each_query_step<Shape>(memory, a, own, steps, [&](const auto& passing, const auto& pairs) {
    Products<Shape> s;
    typename Shape::Scores p;
    find_scores<Shape>(s, memory, passing, handed);
    take<Shape>(p, s);
    cap_products<typename Shape::T>(p, a.rule);
    find_weights(p, a.rule.unit, pairs);
    add_weighted<Shape>(grad_v, p, passing.at[1]);
  });
  memory.pipeline.wait_until_empty(after);  // the others may still read the last step's stage, but not this one
  auto& through = *reinterpret_cast<typename Shape::OwnTile*>(&memory.stages[after.stage]);
  static_assert(sizeof through <= sizeof memory.stages[0]);
  store_sums<Shape>(grad_v, 1.0f, through, a.grad_v, piece.start + own.first, kv_head, own.last - own.first + 1);
}

template <class Shape, Cap cap>
__device__ __forceinline__ void key_gradients(typename Shape::Memory& memory, const Gradients<typename Shape::T>& a,
                                              const SequencePiece& piece, int kv_head, const PassingSteps& steps) {
  const Span own = warp_span<Shape>(piece.index * Shape::own, piece.length);
  float grad_k[Shape::D / 2] = {};
  RingPlace<Shape::ahead> handed;
  for_each_query_step<Shape>(memory, a, own, steps, [&](const auto& passing, const auto& pairs) {
    add_gradients<Shape, cap>(grad_k, memory, passing, handed, a.rule, pairs);
  });
  store_sums<Shape>(grad_k, a.scale, memory.through, a.grad_k, piece.start + own.first, kv_head,
                    own.last - own.first + 1);
}

// ---- grad_q ----

// Calls each(passing, n) likewise.
template <class Shape, class Each>
__device__ __forceinline__ void for_each_key_step(typename Shape::Memory& memory, const PassingSteps& steps,
                                                  const Each& each) {
  RingPlace<Shape::stages> place;
  mbarrier_wait(memory.own_full, 0);
  for (int n = steps.begin; n < steps.end; ++n, place.advance()) {
    memory.pipeline.wait_until_full(place);
    each(memory.stages[place.stage], n);
    memory.pipeline.release(place.stage);
  }
}

template <class Shape>
__device__ __forceinline__ void query_scores(typename Shape::Memory& memory, const PassingSteps& steps) {
  RingPlace<Shape::ahead> handed;
  for_each_key_step<Shape>(memory, steps, [&](const auto& passing, int) {
    Products<Shape> s;
    find_scores<Shape>(s, memory, passing, handed);
  });
}

template <class Shape, Cap cap>
__device__ __forceinline__ void query_gradients(typename Shape::Memory& memory, const Gradients<typename Shape::T>& a,
                                                const SequencePiece& piece, int head, const PassingSteps& steps) {
  const Span own = warp_span<Shape>(piece.index * Shape::own, piece.length);
  RowValues<Shape::warp_rows, RowTerms> own_terms;
  load_own_terms(own_terms, a, piece, own, head);
  float grad_q[Shape::D / 2] = {};
  RingPlace<Shape::ahead> handed;
  for_each_key_step<Shape>(memory, steps, [&](const auto& passing, int n) {
    const QueriesMeetKeys<Shape::warp_rows> pairs{own, step_rows<Shape>(n), a.rule.window, own_terms};
    add_gradients<Shape, cap>(grad_q, memory, passing, handed, a.rule, pairs);
  });
  store_sums<Shape>(grad_q, a.scale, memory.through, a.grad_q, piece.start + own.first, head, own.last - own.first + 1);
}

// ---- kernels ----

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_key_gradient_wide_kernel(Resources, const __grid_constant__ Inputs inputs, Gradients<typename Shape::T> a,
                                       Sequences sequences) {
  key_gradient_block<Shape>(inputs, a, sequences, [&](auto& memory, const auto& piece, int kv_head, const auto& steps) {
    if (warpgroup_of_block() == 1) return value_gradients<Shape>(memory, a, piece, kv_head, steps);
    a.rule.cap > 0 ? key_gradients<Shape, Cap::some>(memory, a, piece, kv_head, steps)
                   : key_gradients<Shape, Cap::none>(memory, a, piece, kv_head, steps);
  });
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_query_gradient_wide_kernel(Resources, const __grid_constant__ Inputs inputs,
                                         Gradients<typename Shape::T> a, Sequences sequences) {
  query_gradient_block<Shape>(inputs, a, sequences, [&](auto& memory, const auto& piece, int head, const auto& steps) {
    if (warpgroup_of_block() == 1) return query_scores<Shape>(memory, steps);
    a.rule.cap > 0 ? query_gradients<Shape, Cap::some>(memory, a, piece, head, steps)
                   : query_gradients<Shape, Cap::none>(memory, a, piece, head, steps);
  });
}

template <class Shape>
void gradients(const AttentionBackwardCuda& args) {
  launch_passes<Shape>(args, attention_key_gradient_wide_kernel<Shape>, attention_query_gradient_wide_kernel<Shape>);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void attention_backward_wide_warpgroups(const AttentionBackwardCuda& args) {
  args.dtype == DType::bf16 ? gradients<WideGradients<bf16_t>>(args) : gradients<WideGradients<f16_t>>(args);
}
template void attention_backward_wide_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionBackwardCuda&);

}  // namespace lathe::kernels
