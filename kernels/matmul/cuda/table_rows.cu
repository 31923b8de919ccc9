// Parts of many weights in nf4's or int8's codes as numbers, for products of groups of many rows, whose tiles read them
// dense: one launch, since each is done in a microsecond or two. A thread has eight neighbours at a time, and blocks
// stay: filling nf4's tables for each thousand elements would take longer than moving them.
#include "kernels/cuda/launch.h"
#include "kernels/matmul/cuda/grouped.h"
#include "kernels/matmul/weights/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 256, blocks = 6;

template <class T, class Codes>
struct TableRows {
  Codes codes;  // what all share
  const typename Codes::Place* places;
  T* out;
  int64_t first_row, first_column, weight_columns;
  unsigned rows, columns, eights;  // eights: of all elements
};

template <class Codes>
__device__ __forceinline__ Group codes_of_eight(const uint8_t* from, const typename Codes::Shared& shared) {
  uint32_t words[Codes::bits / 4];
  if constexpr (Codes::bits == 4) {
    words[0] = load_vector<uint32_t>(from);
  } else {
    load_words(words, from);
  }
  Group values;
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) values.at[i] = Codes::value(words, i, shared);
  return values;
}

template <class T, class Codes>
__global__ void __launch_bounds__(threads, blocks) table_rows_kernel(const __grid_constant__ TableRows<T, Codes> a) {
  struct Tables {
    alignas(16) typename Codes::Shared of_codes;
  };
  auto& shared = block_shared<Tables>().of_codes;
  a.codes.fill(shared, static_cast<int>(threadIdx.x), threads);
  __syncthreads();  // what decoding looks up is there
  const unsigned across = a.columns / group_elements;
  for (unsigned eight = blockIdx.x * threads + threadIdx.x; eight < a.eights; eight += gridDim.x * threads) {
    const unsigned row = eight / across;
    const typename Codes::Place& place = a.places[row / a.rows];
    const int64_t weight_row = a.first_row + row % a.rows, column = a.first_column + eight % across * group_elements;
    const float scale = a.codes.scale(place, a.codes.read_scale(place, weight_row, column, a.weight_columns), shared);
    Group values =
        codes_of_eight<Codes>(place.codes + (weight_row * a.weight_columns + column) * Codes::bits / 8, shared);
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) values.at[i] *= scale;
    store_group<true>(a.out + int64_t{eight} * group_elements, values, group_elements);
  }
}

template <class T, class Codes>
void start(const TableRowsArgs& args, const Codes& codes) {
  const int64_t eights = args.count * args.rows * args.columns / group_elements;
  const int64_t wanted = (eights + threads - 1) / threads, at_a_time = int64_t{blocks} * multiprocessors();
  const TableRows<T, Codes> a{.codes = codes,
                              .places = static_cast<const typename Codes::Place*>(args.places),
                              .out = static_cast<T*>(args.out),
                              .first_row = args.first_row,
                              .first_column = args.first_column,
                              .weight_columns = args.weight_columns,
                              .rows = static_cast<unsigned>(args.rows),
                              .columns = static_cast<unsigned>(args.columns),
                              .eights = static_cast<unsigned>(eights)};
  launch({.name = "quantized_table_rows",
          .grid = dim3(static_cast<unsigned>(wanted < at_a_time ? wanted : at_a_time)),
          .block = dim3(threads)},
         table_rows_kernel<T, Codes>, a);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_table_rows(const TableRowsArgs& args, const QuantizedProductArgs& first) {
  using namespace LATHE_CUDA_NAMESPACE;
  with_codes(first, [&]<class T, class Codes>(const Codes& codes) { start<T>(args, codes); });
}
template void quantized_table_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const TableRowsArgs&, const QuantizedProductArgs&);

}  // namespace lathe::kernels
