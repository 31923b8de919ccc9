// Rows of a weight in ggml's blocks as numbers: all of them for a product of many rows, those of tokens for an
// embedding, parts of many weights for a mixture. Bound by bandwidth: a thread has eight neighbours, two of each
// quarter of a row (tiles.h), and eight threads the bytes of a row's stage. The format is looked at in the kernel,
// which makes one of all.
#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/indices.h"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"
#include "kernels/matmul/weights/ggml/cuda/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

struct Call {
  Matrix out;
  GgmlTiles weight;
  int64_t columns, weight_rows;
  bool aligned;
};

struct RowsInOrder {
  int64_t first_row;
  __device__ __forceinline__ int64_t operator[](int64_t row) const { return first_row + row; }
};

template <class Format>
__device__ __forceinline__ Group eight_of(const uint8_t* data, int64_t tile_bytes, int64_t columns, int64_t weight_row,
                                          int64_t column) {
  using Place = ggml::Tiles<Format>;
  const uint8_t* tile = data + weight_row / Place::rows * tile_bytes;
  const int row = static_cast<int>(weight_row % Place::rows);
  const int64_t index = column / ggml::stage_neighbours;
  const int64_t stages = (columns + ggml::stage_neighbours - 1) / ggml::stage_neighbours;
  const int eight = static_cast<int>(column % ggml::stage_neighbours) / group_elements;
  const uint8_t* stage = tile + index * Place::stage_bytes;
  const uint32_t factors = read_factors<Format>(tile + stages * Place::stage_bytes, index / Place::block_stages, row);
  const Scale<Format> scale = StageScales<Format>(stage, row, factors).of(eight / 2);
  Group values;
  LATHE_UNROLL
  for (int quarter = 0; quarter < 4; ++quarter) {
    const uint32_t word =
        StageCodes<Format>::word_at(stage, row, quarter, eight / 2, GridInMemory<Format>{}) >> (eight % 2 * 16);
    values.at[2 * quarter] = scale.value(word, 0);
    values.at[2 * quarter + 1] = scale.value(word, 1);
  }
  return values;
}

template <class T, class Ids>
__global__ void __launch_bounds__(elementwise_threads) ggml_rows_kernel(Call a, Tiling tiling, Ids ids, int64_t first) {
  const Elements here = elements_of_thread(tiling);
  if (here.count == 0) return;
  const int64_t id = ids[here.row];
  Group values;
  if (id >= 0 && id < a.weight_rows) {
    with_ggml_format(a.weight.format, [&]<class Format>() {
      values = eight_of<Format>(a.weight.data, a.weight.tile_bytes, a.columns, id, here.column);
    });
  } else {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) values.at[j] = __uint_as_float(0x7fffffffu);
  }
  T* const out = row_of<T>(a.out, first + here.row) + here.column;
  a.aligned ? store_group<true>(out, values, here.count) : store_group<false>(out, values, here.count);
}

// Parts of many weights, one after another.
struct TableCall {
  Matrix out;
  GgmlFormat format;
  const GgmlPlace* places;
  int64_t tile_bytes, columns, first_row, first_column;
  unsigned rows;  // of each
};

template <class T>
__global__ void __launch_bounds__(elementwise_threads) ggml_table_rows_kernel(TableCall a, Tiling tiling) {
  const Elements here = elements_of_thread(tiling);
  if (here.count == 0) return;
  const unsigned row = static_cast<unsigned>(here.row);
  const uint8_t* const tiles = a.places[row / a.rows].tiles;
  const int64_t weight_row = a.first_row + row % a.rows;
  Group values;
  with_ggml_format(a.format, [&]<class Format>() {
    values = eight_of<Format>(tiles, a.tile_bytes, a.columns, weight_row, a.first_column + here.column);
  });
  store_group<true>(row_of<T>(a.out, here.row) + here.column, values, here.count);
}

template <class T>
void start(const GgmlRowsArgs& args) {
  const Call call{args.out, args.weight, args.columns, args.weight_rows, rows_aligned<T>(args.out)};
  constexpr const char* name = "ggml_rows";
  if (args.ids == nullptr)
    return launch_elementwise(name, args.rows, args.columns, ggml_rows_kernel<T, RowsInOrder>, call,
                              RowsInOrder{args.first_row}, int64_t{0});
  for_each_launch(*args.ids, args.rows, [&]<class Ids>(const Ids& ids, int64_t first, int64_t count) {
    launch_elementwise(name, count, args.columns, ggml_rows_kernel<T, Ids>, call, ids, first);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void ggml_rows(const GgmlRowsArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { start<T>(args); });
}
template void ggml_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const GgmlRowsArgs&);

template <DeviceKind>
void ggml_table_rows(const TableRowsArgs& args, GgmlFormat format, int64_t tile_bytes) {
  using namespace LATHE_CUDA_NAMESPACE;
  const TableCall call{.out = {args.out, args.columns},
                       .format = format,
                       .places = static_cast<const GgmlPlace*>(args.places),
                       .tile_bytes = tile_bytes,
                       .columns = args.weight_columns,
                       .first_row = args.first_row,
                       .first_column = args.first_column,
                       .rows = static_cast<unsigned>(args.rows)};
  const auto kernel = args.dtype == DType::bf16 ? ggml_table_rows_kernel<bf16_t> : ggml_table_rows_kernel<f16_t>;
  launch_elementwise("ggml_table_rows", args.count * args.rows, args.columns, kernel, call);
}
template void ggml_table_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const TableRowsArgs&, GgmlFormat, int64_t);

}  // namespace lathe::kernels
