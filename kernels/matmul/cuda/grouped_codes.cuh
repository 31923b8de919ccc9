// Few rows in groups, each by a weight in codes of its own: the blocks of codes_product.cuh, and so the bits.
#pragma once

#include "kernels/matmul/cuda/codes_product.cuh"
#include "kernels/matmul/cuda/grouped.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

template <class T, class Codes>
struct GroupedCodes {
  RowGroups groups;
  DenseOperand<T> left;
  int64_t k;
  Codes codes;  // what all weights share
  PlacesOf<typename Codes::Place> weights[2];
  GateKind gate;
  GroupedOut<T> out;
};

template <
    class T, class Right,
    class Resources = BlockResources<CodesBlock<1>::threads, 1, static_cast<int>(sizeof(CodesMemory<T, Right, 1>))>>
__global__ void __launch_bounds__(Resources::threads, codes_blocks)
    grouped_codes_kernel(Resources, const __grid_constant__ GroupedCodes<T, typename Right::Codes> p) {
  using Memory = CodesMemory<T, Right, 1>;
  Memory& memory = *dynamic_shared<Memory>();
  const int first_column = static_cast<int>(blockIdx.x) * codes_columns;
  begin_dependent();
  const RowGroup group = p.groups.of_block();
  if (group.rows == 0) return;  // the whole block
  CodesSums sums;
  if (CodesBlock<1>::multiplies()) {
    multiply_codes(sums, p.left, RowsFrom{group.begin}, group.rows, p.k, memory);
  } else {
    const TeamThread thread = TeamThread::of_block<1>();
    Right right(p.codes, p.weights[0].places[group.number], memory.right[0], thread, first_column, p.out.n, p.k);
    decode_codes(right, thread, p.k, memory);
  }
  finish_codes(sums, memory, p.out.of(group, p.weights[0].template bias<T>(group.number)), 0, first_column);
}

template <
    class T, class Right,
    class Resources = BlockResources<CodesBlock<2>::threads, 1, static_cast<int>(sizeof(CodesMemory<T, Right, 2>))>>
__global__ void __launch_bounds__(Resources::threads, codes_blocks)
    grouped_gated_codes_kernel(Resources, const __grid_constant__ GroupedCodes<T, typename Right::Codes> p) {
  using Memory = CodesMemory<T, Right, 2>;
  Memory& memory = *dynamic_shared<Memory>();
  const int first_column = static_cast<int>(blockIdx.x) * codes_columns;
  begin_dependent();
  const RowGroup group = p.groups.of_block();
  if (group.rows == 0) return;  // the whole block
  CodesSums sums;
  if (CodesBlock<2>::multiplies()) {
    multiply_codes(sums, p.left, ListedRows{p.groups.rows + group.begin}, group.rows, p.k, memory);
  } else {
    const TeamThread thread = TeamThread::of_block<2>();
    Right right(p.codes, p.weights[thread.weight].places[group.number], memory.right[thread.weight], thread,
                first_column, p.out.n, p.k);
    decode_codes(right, thread, p.k, memory);
  }
  const auto& all = gated_sums_of_block(sums, memory);
  const GatedEpilogue<T> out = p.out.of(group);
  const GatedBias<T> bias{p.weights[0].template bias<T>(group.number), p.weights[1].template bias<T>(group.number)};
  const auto finish = [&](auto gate) {
    finish_gated<T, decltype(gate), codes_rows, codes_columns>(out, all, 0, first_column, bias);
  };
  p.gate == GateKind::silu        ? finish(Silu{})
  : p.gate == GateKind::gelu_tanh ? finish(GeluTanh{})
                                  : finish(ClampedSilu{});
}

// Alone, Gated: the Rights of blocks with one weight and with two.
template <class T, class Alone, class Gated>
void start_grouped_codes(const GroupedArgs& args, const typename Alone::Codes& codes) {
  using Codes = typename Alone::Codes;
  using Places = PlacesOf<typename Codes::Place>;
  const GroupedCodes<T, Codes> p{.groups = RowGroups(args),
                                 .left = dense_operand<T>(args.left),
                                 .k = args.k,
                                 .codes = codes,
                                 .weights = {Places(args.weights), Places(args.up)},
                                 .gate = args.gate,
                                 .out = GroupedOut<T>(args)};
  const dim3 grid = grouped_grid(args, codes_columns);
  args.is_gated() ? launch_dependent("grouped_gated", grid, grouped_gated_codes_kernel<T, Gated>, p)
                  : launch_dependent("grouped_product", grid, grouped_codes_kernel<T, Alone>, p);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
