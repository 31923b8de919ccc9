// t = scale · dropout(x)·Aᵀ and dA += dtᵀ·dropout(x) of up to three terms: products that are some ranks wide, whose
// time is that of reading x and of drawing its masks (some 14 instructions an element and mask, ten of which are
// Philox's: two masks take longer than memory does).
//
// A block has sixteen rows of x and walks along their columns, or sixteen columns and walks along their tokens. Of its
// threads most draw masks: each takes eight neighbours of a step's tile of x, which it copied itself, and puts them,
// dropped, into a tile for each term. The first warps multiply meanwhile the step before, from such tiles and those of
// A or dt: a chain of products for each sixteen ranks of a term. All meet at one barrier a step.
//
// An element's sum has the steps of sixteen of kernels/matmul/cuda/dense.cu, and so its bits: a product is the same
// whichever operand is on the left, and zeros past the end change no sum.
#include "kernels/lora_dropout/bodies.h"

#include "kernels/cuda/launch.h"
#include "kernels/dropout/mask.cuh"
#include "kernels/lora_dropout/pack_eight.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

inline constexpr int unit = static_cast<int>(rank_unit);

// What a block has of x in a step, and of a factor for sixteen ranks. Sums run along columns (Major::k) or along
// tokens.
template <Major major, class T>
using StepTile = std::conditional_t<major == Major::k, SwizzledTile<T, 16, 64>, SwizzledTile<T, 128, 16>>;

// A launch of up to `terms` terms with `units` times sixteen ranks between them.
template <Major major_, int terms_, int units_, int x_stages_, int factor_stages_, int blocks>
struct DroppedShape {
  static constexpr Major major = major_;
  static constexpr int terms = terms_, units = units_, x_stages = x_stages_, factor_stages = factor_stages_;
  static constexpr int multiplying_warps = units < 4 ? units : units == 4 ? 4 : 3;
  static constexpr int units_of_warp = units / multiplying_warps;
  static_assert(units % multiplying_warps == 0);
  using Bits = StepTile<major, uint16_t>;
  static constexpr int multiplying = 32 * multiplying_warps, masking = Bits::rows * Bits::vectors;  // threads
  static constexpr int k_steps = (major == Major::k ? Bits::columns : Bits::rows) / 16;
  static constexpr int shared_bytes = static_cast<int>(sizeof(Bits)) * (x_stages + 2 * terms + factor_stages * units);
  using Resources = BlockResources<multiplying + masking, blocks, shared_bytes>;
};
// All there are, of either product.
template <Major major>
using OneUnit = DroppedShape<major, 1, 1, major == Major::k ? 8 : 6, 4, 3>;
template <Major major>
using OneTerm = DroppedShape<major, 1, units_of_one_term, major == Major::k ? 8 : 4, 3, 2>;
template <Major major>
using ThreeUnits = DroppedShape<major, most_dropped_terms, 3, major == Major::k ? 8 : 4, 3, 2>;
template <Major major>
using AllUnits = DroppedShape<major, most_dropped_terms, units_of_terms, major == Major::k ? 8 : 4, 2, 1>;

template <class Shape, class T>
struct StepTiles {
  using Tile = StepTile<Shape::major, T>;
  Tile x[Shape::x_stages];
  Tile masked[2][Shape::terms];
  Tile factors[Shape::factor_stages][Shape::units];
};

// Up to sixteen ranks of a term, from their first one on.
struct RankUnit {
  const void* factor;
  int64_t factor_stride;
  void* out;
  int64_t out_stride;
  int ranks, term;
};

struct ProductsArgs {
  ConstMatrix x;
  int64_t columns;
  float scale;
  MaskArgs mask;
  uint32_t streams[most_dropped_terms];
  int terms;
  RankUnit units[units_of_terms];
};

// ---- a block's steps: tiles of x from (row, column) on, `rows` and `columns` from there to the end ----

struct ColumnSteps {
  int64_t row;
  int rows;
  int64_t column, columns;

  static constexpr int length = StepTile<Major::k, uint16_t>::columns;
  __device__ __forceinline__ void advance() {
    column += length;
    columns -= length;
  }
  __device__ __forceinline__ bool ends_sum() const { return columns <= length; }
};

// Sequence by sequence, of which each is a sum.
struct TokenSteps {
  const SequenceBounds& bounds;
  int64_t column, columns;
  int sequence = -1, rows = 0;
  int64_t row = 0;

  static constexpr int length = StepTile<Major::mn, uint16_t>::rows;
  __device__ __forceinline__ TokenSteps(const SequenceBounds& all, int64_t first_column, int64_t columns_left)
      : bounds(all), column(first_column), columns(columns_left) {
    advance();
  }
  __device__ __forceinline__ void advance() {
    row += length;
    rows -= length;
    while (rows <= 0 && ++sequence < bounds.count) {
      row = bounds.at[sequence];
      rows = bounds.at[sequence + 1] - bounds.at[sequence];
    }
  }
  __device__ __forceinline__ bool ends_sum() const { return rows <= length; }
};

// ---- threads that mask ----

template <class Shape, class T>
class Masking {
  using Tiles = StepTiles<Shape, T>;
  using Tile = typename Tiles::Tile;

 public:
  // Where a thread's eight neighbours stand in every tile.
  const int row, column;

  __device__ __forceinline__ explicit Masking(int thread)
      : row(thread / Tile::vectors), column(thread % Tile::vectors * 8) {}

  template <class Steps>
  __device__ __forceinline__ void copy(Tile& tile, const ProductsArgs& args, const Steps& at) const {
    const bool here = row < at.rows && column < at.columns;
    const T* from = row_of<T>(args.x, at.row + (here ? row : 0)) + at.column + (here ? column : 0);
    cp_async_16(place(tile), from, here ? 16 : 0);
  }

  // From a tile of x whose own copy is there into one for each term. `first`: the column of x of these neighbours.
  __device__ __forceinline__ void mask(Tile (&masked)[Shape::terms], Tile& x, const ProductsArgs& args,
                                       const MaskRow& mask_row, int64_t first) const {
    const GroupBits<T> bits = load_bits<T>(place(x));
    LATHE_UNROLL
    for (int term = 0; term < Shape::terms; ++term) {
      if (Shape::terms > 1 && term >= args.terms) return;
      float values[8];
      LATHE_UNROLL
      for (int i = 0; i < 8; ++i) values[i] = to_float(bits.elements[i]);
      drop_eight(values, args.mask, mask_row, static_cast<uint32_t>(first), args.streams[term]);
      store_bits(place(masked[term]), pack_eight<T>(values));
    }
  }

 private:
  __device__ __forceinline__ T* place(Tile& tile) const { return tile.elements + Tile::offset(row, column); }
};

// ---- threads that multiply ----

// A warp's units: sums of sixteen ranks × the sixteen rows or columns of the block.
template <class Shape, class T>
class Multiplying {
  using Tiles = StepTiles<Shape, T>;
  using Tile = typename Tiles::Tile;

 public:
  // All units of a step: their vectors go round the threads.
  template <class Steps>
  static __device__ __forceinline__ void copy(Tile (&units)[Shape::units], const ProductsArgs& args, const Steps& at) {
    constexpr int vectors = Tile::rows * Tile::vectors;
// Unrolled, the addresses along tokens took all registers: these threads wait for the others most of the time.
#pragma unroll 1
    for (int i = 0; i < Shape::units * vectors; i += Shape::multiplying) {
      const int vector = i + static_cast<int>(threadIdx.x);
      const int row = vector % vectors / Tile::vectors, column = vector % Tile::vectors * 8;
      const RankUnit& of = args.units[vector / vectors];
      const T* from = static_cast<const T*>(of.factor);
      bool here;
      if constexpr (Shape::major == Major::k) {
        here = row < of.ranks && column < at.columns;
        if (here) from += row * of.factor_stride + at.column + column;
      } else {
        here = row < at.rows && column < of.ranks;
        if (here) from += (at.row + row) * of.factor_stride + column;
      }
      cp_async_16(units[vector / vectors].elements + Tile::offset(row, column), from, here ? 16 : 0);
    }
  }

  __device__ __forceinline__ void multiply(const Tile (&units)[Shape::units], const Tile (&masked)[Shape::terms],
                                           const ProductsArgs& args) {
    const AReader<Tile, Shape::major> left(0);
    const BReader<Tile, Shape::major> right(0);
    LATHE_UNROLL
    for (int i = 0; i < Shape::units_of_warp; ++i) {
      const RankUnit& of = args.units[unit_number(i)];
      if (of.ranks == 0) return;
      const Tile& kept = masked[Shape::terms > 1 ? of.term : 0];
      LATHE_UNROLL
      for (int k = 0; k < Shape::k_steps; ++k) {
        AFragment<T> a;
        BFragment<T> b[2];
        left.load(a, units[unit_number(i)], 0, 16 * k);
        right.load(b[0], b[1], kept, 0, 16 * k);
        mma(sums_[i].at[0][0], a, b[0]);
        mma(sums_[i].at[0][1], a, b[1]);
      }
    }
  }

  // Calls add(unit, rank, neighbour, low, high) for the sums of two neighbours of x's side; the next ones begin.
  template <class Add>
  __device__ __forceinline__ void finish(const ProductsArgs& args, const Add& add) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    LATHE_UNROLL
    for (int i = 0; i < Shape::units_of_warp; ++i) {
      const RankUnit& of = args.units[unit_number(i)];
      LATHE_UNROLL
      for (int j = 0; j < 2; ++j) {
        float(&sums)[4] = sums_[i].at[0][j];
        LATHE_UNROLL
        for (int h = 0; h < 2; ++h) {
          const int rank = fragment_row(lane, 2 * h);
          if (rank < of.ranks) add(of, rank, 8 * j + fragment_column(lane, 0), sums[2 * h], sums[2 * h + 1]);
          sums[2 * h] = sums[2 * h + 1] = 0.0f;
        }
      }
    }
  }

 private:
  static __device__ __forceinline__ int unit_number(int i) {
    return static_cast<int>(threadIdx.x) / 32 + i * Shape::multiplying_warps;
  }
  Accumulator<unit, 16> sums_[Shape::units_of_warp];
};

// `steps` steps of a block, from `first` on. row_of(at, row): the place among the counters of a row of a step's tile;
// add(at, …): as Multiplying::finish's, at the end of each sum.
template <class Shape, class T, class Steps, class RowOf, class Add>
__device__ __forceinline__ void multiply_dropped(const ProductsArgs& args, const Steps& first, int steps,
                                                 const RowOf& row_of, const Add& add) {
  using Tiles = StepTiles<Shape, T>;
  static_assert(sizeof(Tiles) == Shape::shared_bytes);
  Tiles& tiles = *dynamic_shared<Tiles>();
  const bool multiplies = static_cast<int>(threadIdx.x) < Shape::multiplying;
  const Masking<Shape, T> masking(static_cast<int>(threadIdx.x) - Shape::multiplying);
  Multiplying<Shape, T> multiplying;
  Steps copied = first, at = first;
  // x is masked by who copied it. A factor is copied by one warp and read by others, a barrier later.
  constexpr int x_ahead = Shape::x_stages - 1, factor_ahead = Shape::factor_stages - 2;
  const auto copy = [&](int step) {
    if (step < steps) {
      if (multiplies) {
        multiplying.copy(tiles.factors[step % Shape::factor_stages], args, copied);
      } else {
        masking.copy(tiles.x[step % Shape::x_stages], args, copied);
      }
      copied.advance();
    }
    cp_async_commit();
  };
  for (int step = 0; step < (multiplies ? factor_ahead : x_ahead); ++step) copy(step);
  for (int step = 0; step <= steps; ++step) {
    if (multiplies) {
      copy(step + factor_ahead);
      if (step > 0) {
        multiplying.multiply(tiles.factors[(step - 1) % Shape::factor_stages], tiles.masked[(step - 1) % 2], args);
        if (at.ends_sum())
          multiplying.finish(args, [&](const RankUnit& of, int rank, int neighbour, float low, float high) {
            add(at, of, rank, neighbour, low, high);
          });
        at.advance();
      }
      cp_async_wait<factor_ahead>();
    } else if (step < steps) {
      cp_async_wait<x_ahead - 1>();
      masking.mask(tiles.masked[step % 2], tiles.x[step % Shape::x_stages], args, row_of(at, masking.row),
                   at.column + masking.column);
      at.advance();
      copy(step + x_ahead);
    }
    __syncthreads();  // the step's tiles are there, and those of the step before have been multiplied
  }
}

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    shrink_kernel(Resources, ProductsArgs args, SequenceBounds bounds, SampleNumbers samples) {
  const int64_t row = bounds.at[0] + int64_t{blockIdx.x} * 16, left = bounds.at[bounds.count] - row;
  const int rows = left < 16 ? static_cast<int>(left) : 16;
  const int own = (static_cast<int>(threadIdx.x) - Shape::multiplying) / Shape::Bits::vectors;
  const MaskRow own_row = mask_row_of(bounds, samples, row + (own >= 0 && own < rows ? own : 0), added_step(args.mask));
  const int steps = static_cast<int>((args.columns + ColumnSteps::length - 1) / ColumnSteps::length);
  multiply_dropped<Shape, T>(
      args, ColumnSteps{row, rows, 0, args.columns}, steps, [&](const ColumnSteps&, int) { return own_row; },
      [&](const ColumnSteps& at, const RankUnit& of, int rank, int neighbour, float low, float high) {
        T* out = static_cast<T*>(of.out) + (at.row + neighbour) * of.out_stride + rank;
        if (neighbour < at.rows) out[0] = from_float<T>(low * args.scale);
        if (neighbour + 1 < at.rows) out[of.out_stride] = from_float<T>(high * args.scale);
      });
}

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    factor_gradients_kernel(Resources, ProductsArgs args, int steps, SequenceBounds bounds, SampleNumbers samples) {
  const int64_t column = int64_t{blockIdx.x} * 16;
  const uint32_t step = added_step(args.mask);
  multiply_dropped<Shape, T>(
      args, TokenSteps(bounds, column, args.columns - column), steps,
      [&](const TokenSteps& at, int row) {
        return mask_row(at.row + row - bounds.at[at.sequence], samples.at[at.sequence], step);
      },
      [&](const TokenSteps& at, const RankUnit& of, int rank, int neighbour, float low, float high) {
        if (neighbour >= at.columns) return;
        float* out = static_cast<float*>(of.out) + rank * of.out_stride + at.column + neighbour;
        float2 total = load_vector<float2>(out);
        total.x = low + total.x;
        total.y = high + total.y;
        store_vector(out, total);
      });
}

// ---- host ----

// Ranks of A are its rows, those of dt its columns; of t columns, of grad_a rows.
template <class T, class Out>
RankUnit unit_of(const DroppedTermArgs& term, int64_t first, int number, int64_t factor_step, int64_t out_step) {
  const int64_t left = term.rank - first;
  return {static_cast<const T*>(term.factor.data) + first * factor_step,
          term.factor.stride,
          static_cast<Out*>(term.out.data) + first * out_step,
          term.out.stride,
          static_cast<int>(left < unit ? left : unit),
          number};
}

// Returns how many units there are; the others have no ranks.
template <Major major, class T>
int set_units(ProductsArgs& args, const DroppedProductArgs& from) {
  int units = 0;
  for (int number = 0; number < from.count; ++number) {
    const DroppedTermArgs& term = from.terms[number];
    args.streams[number] = term.stream;
    for (int64_t first = 0; first < term.rank; first += unit)
      args.units[units++] = major == Major::k ? unit_of<T, T>(term, first, number, term.factor.stride, 1)
                                              : unit_of<T, float>(term, first, number, 1, term.out.stride);
  }
  for (int i = units; i < units_of_terms; ++i) args.units[i] = {from.x.data, 0, nullptr, 0, 0, 0};
  return units;
}

// Calls start.operator()<Shape>() with the smallest shape.
template <Major major, class Start>
void with_shape(const DroppedProductArgs& args, int units, const Start& start) {
  if (args.count == 1)
    return units == 1 ? start.template operator()<OneUnit<major>>() : start.template operator()<OneTerm<major>>();
  return units <= 3 ? start.template operator()<ThreeUnits<major>>() : start.template operator()<AllUnits<major>>();
}

// Calls body(args, units) with the arguments of all launches.
template <Major major, class T, class Body>
void with_products(const DroppedProductArgs& from, const Body& body) {
  ProductsArgs args{.x = from.x,
                    .columns = from.columns,
                    .scale = from.scale,
                    .mask = mask_args(from.mask),
                    .streams = {},
                    .terms = from.count,
                    .units = {}};
  const int units = set_units<major, T>(args, from);
  with_shape<major>(from, units, [&]<class Shape>() { body.template operator()<Shape>(args); });
}

template <class T>
void shrink(const DroppedProductArgs& from) {
  with_products<Major::k, T>(from, [&]<class Shape>(const ProductsArgs& args) {
    for_each_launch_of_samples(from.cu_seqlens, from.sample_numbers, from.sequences,
                               [&](const SequenceBounds& bounds, const SampleNumbers& samples) {
                                 const int rows = bounds.at[bounds.count] - bounds.at[0];
                                 if (rows == 0) return;
                                 launch("dropped_shrink", dim3(static_cast<unsigned>((rows + 15) / 16)),
                                        shrink_kernel<Shape, T>, args, bounds, samples);
                               });
  });
}

template <class T>
void factor_gradients(const DroppedProductArgs& from) {
  with_products<Major::mn, T>(from, [&]<class Shape>(const ProductsArgs& args) {
    for_each_launch_of_samples(
        from.cu_seqlens, from.sample_numbers, from.sequences,
        [&](const SequenceBounds& bounds, const SampleNumbers& samples) {
          int steps = 0;
          for (int s = 0; s < bounds.count; ++s)
            steps += (bounds.at[s + 1] - bounds.at[s] + TokenSteps::length - 1) / TokenSteps::length;
          if (steps == 0) return;
          launch("dropped_factor_gradients", dim3(static_cast<unsigned>((from.columns + 15) / 16)),
                 factor_gradients_kernel<Shape, T>, args, steps, bounds, samples);
        });
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void dropped_shrink(const DroppedProductArgs& args) {
  args.dtype == DType::bf16 ? shrink<bf16_t>(args) : shrink<f16_t>(args);
}
template void dropped_shrink<DeviceKind::LATHE_CUDA_NAMESPACE>(const DroppedProductArgs&);

template <DeviceKind>
void dropped_factor_gradients(const DroppedProductArgs& args) {
  args.dtype == DType::bf16 ? factor_gradients<bf16_t>(args) : factor_gradients<f16_t>(args);
}
template void dropped_factor_gradients<DeviceKind::LATHE_CUDA_NAMESPACE>(const DroppedProductArgs&);

}  // namespace lathe::kernels
