// The two passes of attention_backward by wgmma (sm_90a), for bf16 and f16 and D of 64 or 128. A block is a producer,
// whose bulk copies bring 64 rows at a time of what passes by, and consuming warpgroups, which own 64 rows each. While
// one makes weights of its scores, the others multiply.
//
// The bits are those of backward.cuh: the products are (warpgroup.cuh), and what is done with them is the same code on
// registers that lie the same way. Steps of 64 rows take up more rows that see nothing than steps of 32: their weights
// are 0, and adding nothing changes no sum. So it is with rows past a sequence's end, which become zeros.
#include "kernels/attention/cuda/backward.cuh"
#include "kernels/attention/cuda/warpgroup.cuh"

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
  static constexpr int producer_registers = 32, consumer_registers = consumers == 2 ? 240 : 160;
  static_assert(128 * (producer_registers + consumers * consumer_registers) <= 65536);

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
  };
  static constexpr unsigned own_bytes = 2 * OwnPanels::bytes, stage_bytes = 2 * PassingPanels::bytes;
  using Resources = BlockResources<threads, 1, static_cast<int>(sizeof(Memory)), Cards::sm_90a>;

  // The consuming warp's first row of the block's, and its warpgroup's: the same in all lanes, as the compiler is told.
  static __device__ __forceinline__ int warp_row() {
    return (__shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 32, 0) - 4) * warp_rows;
  }
  static __device__ __forceinline__ int warpgroup_row() {
    return (__shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0) - 1) * 64;
  }
};

struct Inputs {
  TensorMap q, grad_out, k, v;                // of all heads
  int q_head, grad_out_head, k_head, v_head;  // elements from head to head
};

// ---- what both passes do ----

// Two tensors' rows to where they belong, on one thread.
template <class Panels>
__device__ __forceinline__ void copy_pair(Panels (&to)[2], const TensorMap& first, int first_column,
                                          const TensorMap& second, int second_column, int token, MBarrier& full) {
  to[0].copy(first, token, first_column, full);
  to[1].copy(second, token, second_column, full);
}

// Step n of what passes by of a sequence of `length` rows, by all lanes of a warp. `before` and `copy` are as
// SequencePipeline's.
template <class Shape, class Copy>
__device__ __forceinline__ void fill_step(typename Shape::Memory& memory, RingPlace<Shape::stages> place, int n,
                                          int length, int before, const Copy& copy) {
  const int left = length - n * Shape::step;
  memory.pipeline.fill(place, Shape::stage_bytes, left >= Shape::step, before, copy, [&] {
    for (auto& panels : memory.stages[place.stage].at) panels.clear_rows(left);
  });
}

// Rows of a step.
template <class Shape>
__device__ __forceinline__ Span step_rows(int n) {
  return {n * Shape::step, n * Shape::step + Shape::step - 1};
}

template <class Shape>
using Products = float[Shape::step / 2];

template <class Shape>
__device__ __forceinline__ void take(typename Shape::Scores& scores, const Products<Shape>& products) {
  for_each(scores, [&](int, int j, int e, float& score) { score = products[4 * j + e]; });
}

template <class Shape>
__device__ __forceinline__ void store_sums(const float (&sums)[Shape::D / 2], float scale,
                                           typename Shape::Memory& memory, const Rows<typename Shape::T>& rows,
                                           int64_t token, int64_t head, int count) {
  typename Shape::Gradient gradient;
  for_each(gradient, [&](int, int j, int e, float& sum) { sum = sums[4 * j + e]; });
  store_gradient<Shape>(gradient, scale, memory.through, rows, token, head, count, Shape::D);
}

enum class Cap { none, some };

// The weights of products s, and with a cap, which ties them together, the gradients of ds, which are on their way.
template <class Shape, Cap cap, class Pairs>
__device__ __forceinline__ void weigh(typename Shape::Scores& p, typename Shape::Scores& gradient,
                                      const Products<Shape>& s, Products<Shape>& ds, const ScoreRule& rule,
                                      const Pairs& pairs) {
  take<Shape>(p, s);
  if constexpr (cap == Cap::none) {
    uncapped_weights(p, rule, pairs);
  } else {
    wgmma_wait<0>(ds);
    take<Shape>(gradient, ds);
    score_gradients<typename Shape::T>(p, gradient, rule, pairs);
  }
}

// ---- grad_k and grad_v ----

// By all lanes of a warp.
template <class Shape>
__device__ __forceinline__ void produce_queries(typename Shape::Memory& memory, const Inputs& inputs,
                                                const Gradients<typename Shape::T>& a, const SequencePiece& piece,
                                                int kv_head, const PassingSteps& steps) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane == 0) {
    mbarrier_arrive_expect_tx(memory.own_full, Shape::own_bytes);
    copy_pair(memory.own, inputs.k, kv_head * inputs.k_head, inputs.v, kv_head * inputs.v_head,
              piece.start + piece.index * Shape::own, memory.own_full);
  }
  RingPlace<Shape::stages> place;
  for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    for (int n = steps.begin; n < steps.end; ++n, place.advance()) {
      RowTerms terms[2];
      LATHE_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int query = n * Shape::step + 32 * i + lane;
        terms[i] = query < piece.length ? row_terms(a, piece.start + query, head) : no_terms;
      }
      memory.pipeline.wait_until_empty(place);
      LATHE_UNROLL
      for (int i = 0; i < 2; ++i) memory.terms[place.stage][32 * i + lane] = make_float2(terms[i].lse, terms[i].dot);
      __syncwarp();  // before the warp's one arrival
      fill_step<Shape>(memory, place, n, piece.length, head - kv_head * a.group, [&](MBarrier& barrier) {
        if (lane == 0)
          copy_pair(memory.stages[place.stage].at, inputs.q, head * inputs.q_head, inputs.grad_out,
                    head * inputs.grad_out_head, piece.start + n * Shape::step, barrier);
      });
    }
  }
}

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
  store_sums<Shape>(grad_k, a.scale, memory, a.grad_k, token, kv_head, count);
  store_sums<Shape>(grad_v, 1.0f, memory, a.grad_v, token, kv_head, count);
}

// ---- grad_q ----

// By all lanes of a warp.
template <class Shape>
__device__ __forceinline__ void produce_keys(typename Shape::Memory& memory, const Inputs& inputs,
                                             const SequencePiece& piece, int head, int kv_head,
                                             const PassingSteps& steps) {
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(memory.own_full, Shape::own_bytes);
    copy_pair(memory.own, inputs.q, head * inputs.q_head, inputs.grad_out, head * inputs.grad_out_head,
              piece.start + piece.index * Shape::own, memory.own_full);
  }
  RingPlace<Shape::stages> place;
  for (int n = steps.begin; n < steps.end; ++n, place.advance()) {
    fill_step<Shape>(memory, place, n, piece.length, 0, [&](MBarrier& barrier) {
      if (threadIdx.x == 0)
        copy_pair(memory.stages[place.stage].at, inputs.k, kv_head * inputs.k_head, inputs.v, kv_head * inputs.v_head,
                  piece.start + n * Shape::step, barrier);
    });
  }
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
  store_sums<Shape>(grad_q, a.scale, memory, a.grad_q, piece.start + own.first, head, own.last - own.first + 1);
}

// ---- kernels ----

// The block's shared memory, whose mbarriers are there for all.
template <class Shape>
__device__ __forceinline__ typename Shape::Memory& begin() {
  auto& memory = *swizzled_shared<typename Shape::Memory>();
  if (threadIdx.x == 0) {
    mbarrier_init(memory.own_full, 1);
    memory.pipeline.init(Shape::consuming_warps);
  }
  __syncthreads();
  return memory;
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_key_gradient_warpgroup_kernel(Resources, const __grid_constant__ Inputs inputs,
                                            Gradients<typename Shape::T> a, Sequences sequences) {
  auto& memory = begin<Shape>();
  const int block = static_cast<int>(blockIdx.x), kv_head = block % a.kv_heads;
  // A sequence's first keys are seen by most: they come first.
  const SequencePiece piece = find_piece(sequences, block / a.kv_heads);
  const PassingSteps steps = query_steps<Shape::step>(rows_span(piece.index * Shape::own, Shape::own, piece.length),
                                                      piece.length, a.rule.window);
  if (__shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0) == 0) {
    give_registers<Shape::producer_registers>();
    if (threadIdx.x < 32) produce_queries<Shape>(memory, inputs, a, piece, kv_head, steps);
  } else {
    take_registers<Shape::consumer_registers>();
    a.rule.cap > 0 ? consume_queries<Shape, Cap::some>(memory, a, piece, kv_head, steps)
                   : consume_queries<Shape, Cap::none>(memory, a, piece, kv_head, steps);
  }
}

template <class Shape, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    attention_query_gradient_warpgroup_kernel(Resources, const __grid_constant__ Inputs inputs,
                                              Gradients<typename Shape::T> a, Sequences sequences) {
  auto& memory = begin<Shape>();
  const int block = static_cast<int>(blockIdx.x), head = block % a.heads;
  // The last queries see most.
  const SequencePiece piece = find_piece(sequences, sequences.pieces() - 1 - block / a.heads);
  const PassingSteps steps =
      key_steps<Shape::step>(rows_span(piece.index * Shape::own, Shape::own, piece.length), a.rule.window);
  if (__shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0) == 0) {
    give_registers<Shape::producer_registers>();
    if (threadIdx.x < 32) produce_keys<Shape>(memory, inputs, piece, head, head / a.group, steps);
  } else {
    take_registers<Shape::consumer_registers>();
    a.rule.cap > 0 ? consume_keys<Shape, Cap::some>(memory, a, piece, head, steps)
                   : consume_keys<Shape, Cap::none>(memory, a, piece, head, steps);
  }
}

// ---- host ----

template <class Keys, class Queries>
void gradients(const AttentionBackwardCuda& args) {
  const auto map = [&](const HeadRows& rows, int64_t heads) {
    return make_tensor_map(head_map_args(rows, args.cu_seqlens[args.sequences], heads, args.head_dim));
  };
  const Inputs inputs{map(args.q, args.heads),       map(args.grad_out, args.heads),
                      map(args.k, args.kv_heads),    map(args.v, args.kv_heads),
                      static_cast<int>(args.q.head), static_cast<int>(args.grad_out.head),
                      static_cast<int>(args.k.head), static_cast<int>(args.v.head)};
  const auto a = gradients_of<typename Keys::T>(args);
  for_each_launch_of_pieces(args, Keys::own, [&](const Sequences& sequences) {
    launch("attention_key_gradient_warpgroup", dim3(static_cast<unsigned>(sequences.pieces() * a.kv_heads)),
           attention_key_gradient_warpgroup_kernel<Keys>, inputs, a, sequences);
  });
  for_each_launch_of_pieces(args, Queries::own, [&](const Sequences& sequences) {
    launch("attention_query_gradient_warpgroup", dim3(static_cast<unsigned>(sequences.pieces() * a.heads)),
           attention_query_gradient_warpgroup_kernel<Queries>, inputs, a, sequences);
  });
}

// All instances: two dtypes times two head sizes.
template <class T>
void choose(const AttentionBackwardCuda& args) {
  args.head_dim == 64 ? gradients<WarpgroupGradients<T, 64, 3, 6>, WarpgroupGradients<T, 64, 3, 6>>(args)
                      : gradients<WarpgroupGradients<T, 128, 2, 3>, WarpgroupGradients<T, 128, 2, 3>>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool attention_takes_warpgroups(const AttentionBackwardCuda& args) {
  const auto served = [&](const HeadRows& rows, int64_t heads) {
    return flash::bulk_copies_serve(rows, args.cu_seqlens[args.sequences], heads, args.head_dim);
  };
  return args.dtype != DType::f32 && (args.head_dim == 64 || args.head_dim == 128) && runs_sm_90a() &&
         served(args.q, args.heads) && served(args.grad_out, args.heads) && served(args.k, args.kv_heads) &&
         served(args.v, args.kv_heads);
}
template bool attention_takes_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionBackwardCuda&);

template <DeviceKind>
void attention_backward_warpgroups(const AttentionBackwardCuda& args) {
  args.dtype == DType::bf16 ? choose<bf16_t>(args) : choose<f16_t>(args);
}
template void attention_backward_warpgroups<DeviceKind::LATHE_CUDA_NAMESPACE>(const AttentionBackwardCuda&);

}  // namespace lathe::kernels
