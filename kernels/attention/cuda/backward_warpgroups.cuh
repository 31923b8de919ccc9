// What the two passes of attention_backward share by wgmma (sm_90a), whatever D is. A block is a producer, whose bulk
// copies bring 64 rows at a time of what passes by, and consuming warpgroups. A shape has the names that backward.cuh
// asks for, and
//   consuming_warps, Registers, stages, own_bytes, stage_bytes
//   Memory: own[2] (keys and values; queries and grad_out), stages[…].at[2] (the others), terms[stages][step],
//           own_full, pipeline; init(), by one thread, of its mbarriers
//
// The bits are those of backward.cuh: the products are (warpgroup.cuh), and what is done with them is the same code on
// registers that lie the same way. Steps of 64 rows take up more rows that see nothing than steps of 32: their weights
// are 0, and adding nothing changes no sum. So it is with rows past a sequence's end, which become zeros.
#pragma once

#include "kernels/attention/cuda/backward.cuh"
#include "kernels/attention/cuda/warpgroup.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

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

// Through the warp's own rows of a tile.
template <class Shape>
__device__ __forceinline__ void store_sums(const float (&sums)[Shape::D / 2], float scale,
                                           typename Shape::OwnTile& through, const Rows<typename Shape::T>& rows,
                                           int64_t token, int64_t head, int count) {
  typename Shape::Gradient gradient;
  for_each(gradient, [&](int, int j, int e, float& sum) { sum = sums[4 * j + e]; });
  store_gradient<Shape>(gradient, scale, through, rows, token, head, count, Shape::D);
}

enum class Cap { none, some };

// The weights of products s, and with a cap, which ties them together, the gradients of ds, which are on their way.
template <class Shape, Cap cap, class Pairs>
__device__ __forceinline__ void weigh(typename Shape::Scores& p, typename Shape::Scores& gradient,
                                      const Products<Shape>& s, Products<Shape>& ds, const ScoreRule& rule,
                                      const Pairs& pairs) {
  take<Shape>(p, s);
  if constexpr (cap == Cap::none) {
    find_weights(p, rule.factor, pairs);
  } else {
    wgmma_wait<0>(ds);
    take<Shape>(gradient, ds);
    score_gradients<typename Shape::T>(p, gradient, rule, pairs);
  }
}

// sums += scores, rounded to T, · passing, by themselves: waits for them.
template <class Shape>
__device__ __forceinline__ void add_weighted(float (&sums)[Shape::D / 2], const typename Shape::Scores& scores,
                                             const typename Shape::PassingPanels& passing) {
  const typename Shape::Weights weights(scores, nullptr);
  wgmma_fence();
  queue_weighted<Onto::sums>(sums, weights, passing);
  wgmma_wait<0>(sums);
  done_with(weights);
}

// ---- the producer ----

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

// ---- blocks ----

// The block's shared memory, whose mbarriers are there for all.
template <class Shape>
__device__ __forceinline__ typename Shape::Memory& begin() {
  auto& memory = *swizzled_shared<typename Shape::Memory>();
  if (threadIdx.x == 0) memory.init();
  __syncthreads();
  return memory;
}

// The warpgroup of the thread: 0 produces.
__device__ __forceinline__ int warpgroup_of_block() {
  return __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0);
}

// grad_k and grad_v of a block's keys; consume(memory, piece, kv_head, steps) is what the consuming warpgroups do.
template <class Shape, class Consume>
__device__ __forceinline__ void key_gradient_block(const Inputs& inputs, const Gradients<typename Shape::T>& a,
                                                   const Sequences& sequences, const Consume& consume) {
  auto& memory = begin<Shape>();
  const int block = static_cast<int>(blockIdx.x), kv_head = block % a.kv_heads;
  // A sequence's first keys are seen by most: they come first.
  const SequencePiece piece = find_piece(sequences, block / a.kv_heads);
  const PassingSteps steps = query_steps<Shape::step>(rows_span(piece.index * Shape::own, Shape::own, piece.length),
                                                      piece.length, a.rule.window);
  if (warpgroup_of_block() == 0) {
    Shape::Registers::give();
    if (threadIdx.x < 32) produce_queries<Shape>(memory, inputs, a, piece, kv_head, steps);
  } else {
    Shape::Registers::take();
    consume(memory, piece, kv_head, steps);
  }
}

// grad_q of a block's queries; consume(memory, piece, head, steps).
template <class Shape, class Consume>
__device__ __forceinline__ void query_gradient_block(const Inputs& inputs, const Gradients<typename Shape::T>& a,
                                                     const Sequences& sequences, const Consume& consume) {
  auto& memory = begin<Shape>();
  const int block = static_cast<int>(blockIdx.x), head = block % a.heads;
  // The last queries see most.
  const SequencePiece piece = find_piece(sequences, sequences.pieces() - 1 - block / a.heads);
  const PassingSteps steps =
      key_steps<Shape::step>(rows_span(piece.index * Shape::own, Shape::own, piece.length), a.rule.window);
  if (warpgroup_of_block() == 0) {
    Shape::Registers::give();
    if (threadIdx.x < 32) produce_keys<Shape>(memory, inputs, piece, head, head / a.group, steps);
  } else {
    Shape::Registers::take();
    consume(memory, piece, head, steps);
  }
}

// ---- host ----

// Both passes, by the kernels of a shape.
template <class Shape, class Kernel>
void launch_passes(const AttentionBackwardCuda& args, Kernel* key_gradient, Kernel* query_gradient) {
  const auto map = [&](const HeadRows& rows, int64_t heads) {
    return make_tensor_map(head_map_args(rows, args.cu_seqlens[args.sequences], heads, args.head_dim));
  };
  const Inputs inputs{map(args.q, args.heads),       map(args.grad_out, args.heads),
                      map(args.k, args.kv_heads),    map(args.v, args.kv_heads),
                      static_cast<int>(args.q.head), static_cast<int>(args.grad_out.head),
                      static_cast<int>(args.k.head), static_cast<int>(args.v.head)};
  const auto a = gradients_of<typename Shape::T>(args);
  for_each_launch_of_pieces(args, Shape::own, [&](const Sequences& sequences) {
    launch("attention_key_gradient_warpgroup", dim3(static_cast<unsigned>(sequences.pieces() * a.kv_heads)),
           key_gradient, inputs, a, sequences);
  });
  for_each_launch_of_pieces(args, Shape::own, [&](const Sequences& sequences) {
    launch("attention_query_gradient_warpgroup", dim3(static_cast<unsigned>(sequences.pieces() * a.heads)),
           query_gradient, inputs, a, sequences);
  });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
