// What products by wgmma in tiles have in common (sm_90a), dense_sm_90a.cu's and those of grouped_tiles_sm_90a.cu. A
// block is a producing warpgroup and one or two consuming ones, which multiply 64 rows each.
//
// An element has the bits that mma.sync gives it (dense.cu): both add 16 products and the sum so far by one formula
// (kernels/simt/tensor_sum.h), and both walk along k by sixteens to the end of the last stage of 64. Were that not so
// on a card (device_tests holds both against the formula), multiplies_by_warpgroups() returning false would be all
// there is to change.
#pragma once

#include "kernels/cuda/tile/bulk_operand.cuh"
#include "kernels/cuda/tile/bulk_pipeline.cuh"
#include "kernels/matmul/cuda/mainloop.cuh"
#include "kernels/matmul/cuda/warpgroup_epilogue.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline bool multiplies_by_warpgroups() { return runs_sm_90a(); }

static_assert(bulk_k == block_k, "zeros past the end of k are added as often as dense.cu does");

template <int m_, int n_, int stages_, int blocks>
struct WarpgroupShape {
  static constexpr int m = m_, n = n_, stages = stages_;
  static constexpr int consumers = m / 64, consuming_warps = 4 * consumers;
  static constexpr int shared_bytes =
      stages * (m + n) * bulk_k * 2 + consuming_warps * static_cast<int>(sizeof(SumsTile)) + 1024;
  using Resources = BlockResources<128 * (1 + consumers), blocks, shared_bytes, Cards::sm_90a>;
};
// 48 KiB a stage. A stage takes the tensor cores 1024 cycles, in which 48 bytes a cycle come from the second-level
// cache; 128 columns want 64.
using WideWarpgroups = WarpgroupShape<128, 256, 4, 1>;
// For products that have too few tiles of that kind, as prompts of 512 tokens.
using MediumWarpgroups = WarpgroupShape<64, 128, 4, 2>;

// A block's shared memory; Left and Right are BulkOperand.
template <class Shape_, class Left, class Right>
struct WarpgroupStages {
  using Shape = Shape_;
  using T = typename Left::T;
  static_assert(Left::extent == Shape::m && Right::extent == Shape::n);
  Left left[Shape::stages];
  Right right[Shape::stages];
  SumsTile sums[Shape::consuming_warps];
  BulkPipeline<Shape::stages> pipeline;
};

// Of a thread: a consumer's n / 2 sums and what surrounds them, in place of what the producer does not need. Blocks of
// one consuming warpgroup have enough as they are.
template <class Shape>
using WarpgroupRegisters =
    std::conditional_t<(Shape::consumers > 1), RegisterSplit<Shape::consumers, 40, 232>, RegistersAsStarted>;

// Calls produce() or consume(number of the consuming warpgroup), in the registers that each side is to have.
template <class Split, class Produce, class Consume>
__device__ __forceinline__ void with_warpgroups(const Produce& produce, const Consume& consume) {
  // From a lane, so that the compiler knows that a warp is of one mind: descriptors live in registers of the warp.
  const int warpgroup = __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup == 0) {
    Split::give();
    produce();
  } else {
    Split::take();
    consume(warpgroup - 1);
  }
}

// sums = the product of `steps` ≥ 1 stages, by a warpgroup whose rows of the tile begin at `row`. The stages are
// released.
template <class Stages, int count>
__device__ __forceinline__ void multiply_stages(float (&sums)[count], Stages& shared, int row, int steps,
                                                RingPlace<Stages::Shape::stages>& place) {
  int before = 0;
  for (int step = 0; step < steps; ++step, place.advance()) {
    shared.pipeline.wait_until_full(place);
    const auto left = shared.left[place.stage].from_row(row);
    const auto right = shared.right[place.stage].from_row(0);
    wgmma_fence();
    LATHE_UNROLL
    for (int k = 0; k < bulk_k / 16; ++k) wgmma(sums, left.next_k16(k), right.next_k16(k), step > 0 || k > 0);
    wgmma_commit();
    wgmma_wait<1>();  // the tensor cores have this stage to do while the one before is given back
    if (step > 0) shared.pipeline.release(before);
    before = place.stage;
  }
  wgmma_wait<0>(sums);
  shared.pipeline.release(before);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
