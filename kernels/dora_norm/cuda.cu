// Squares are bound by bandwidth. Norms by what comes before them: r² multiply-adds a row in f64, and twice as many
// numbers widened to it, 16 a cycle of a multiprocessor of sm_80 and sm_90.
#include "kernels/cuda/element.h"
#include "kernels/cuda/row.h"
#include "kernels/dora_norm/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using SquaredRows = RowThreads<1>;

template <class T, bool aligned>
__global__ void __launch_bounds__(SquaredRows::threads) row_squares_kernel(RowSquaresArgs a) {
  const int64_t row = SquaredRows::row();
  if (row >= a.row_end) return;
  const T* x = row_of<T>(a.rows, row);
  double sum = 0;
  for (int64_t i = SquaredRows::first_column(); i < a.columns; i += SquaredRows::step) {
    const Group group = load_group<aligned>(x + i, group_size(a.columns, i));
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      const double value = group.at[j];
      sum = fma(value, value, sum);
    }
  }
  LATHE_UNROLL
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(full_warp, sum, apart);
  if (threadIdx.x % 32 == 0) a.squares[row] = sum;
}

template <class T>
void square(const RowSquaresArgs& args) {
  const LaunchConfig config{
      .name = "row_squares",
      .grid = dim3(static_cast<unsigned>((args.row_end + SquaredRows::in_block - 1) / SquaredRows::in_block)),
      .block = dim3(SquaredRows::threads)};
  launch(config, rows_aligned<T>(args.rows) ? row_squares_kernel<T, true> : row_squares_kernel<T, false>, args);
}

// Eight lanes for a row: each has every eighth j and its chain along k, then all add what the eight have found, in the
// order of j. fma rounds as the CPU's sum of a product does, which is exact. A row of gram for its column: lanes read
// neighbours.
constexpr int lanes_of_row = 8, norm_threads = 128, rows_of_block = norm_threads / lanes_of_row;

template <class T, bool aligned>
__device__ __forceinline__ double along_k(const DoraNormArgs& a, const T* b, int64_t j) {
  double sum = 0;
  for (int64_t k = 0; k < a.rank; k += group_elements) {
    const int count = group_size(a.rank, k);
    const Group factors = load_group<aligned>(b + k, count);
    const float* const gram = a.gram + k * a.rank + j;
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i)
      if (i < count) sum = fma(double{factors.at[i]}, double{gram[i * a.rank]}, sum);
  }
  return sum;
}

template <class T, bool aligned>
__global__ void __launch_bounds__(norm_threads) dora_norm_kernel(DoraNormArgs a) {
  const int lane = threadIdx.x % lanes_of_row;
  const int64_t own = int64_t{blockIdx.x} * rows_of_block + threadIdx.x / lanes_of_row;
  const int64_t row = own < a.row_end ? own : a.row_end - 1;  // a warp's lanes stay together
  const T* const b = static_cast<const T*>(a.b) + row * a.rank;
  double linear = 0, quadratic = 0;
  for (int64_t first = 0; first < a.rank; first += lanes_of_row) {
    const int64_t j = first + lane;
    double of_linear = 0, of_quadratic = 0;
    if (j < a.rank) {
      const double factor = to_float(b[j]);
      of_linear = factor * double{a.products[j * a.rows + row]};
      of_quadratic = factor * along_k<T, aligned>(a, b, j);
    }
    LATHE_UNROLL
    for (int i = 0; i < lanes_of_row; ++i) {  // zeros past the last j change no sum
      linear += __shfl_sync(full_warp, of_linear, i, lanes_of_row);
      quadratic += __shfl_sync(full_warp, of_quadratic, i, lanes_of_row);
    }
  }
  const double s = a.scaling, square = a.squares[row] + 2 * s * linear + s * s * quadratic;
  const float norm = static_cast<float>(square > 0 ? sqrt(square) : 0.0);
  if (lane != 0 || own >= a.row_end) return;
  if (a.norm != nullptr) a.norm[row] = norm;
  if (a.inverse != nullptr) a.inverse[row] = norm > 0 ? 1 / norm : 0;
}

template <class T>
void find_norms(const DoraNormArgs& args) {
  const bool aligned = rows_aligned(static_cast<const T*>(args.b), args.rank);
  const LaunchConfig config{.name = "dora_norm",
                            .grid = dim3(static_cast<unsigned>((args.row_end + rows_of_block - 1) / rows_of_block)),
                            .block = dim3(norm_threads)};
  launch(config, aligned ? dora_norm_kernel<T, true> : dora_norm_kernel<T, false>, args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void row_squares_rows(const RowSquaresArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { square<T>(args); });
}
template void row_squares_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RowSquaresArgs&);

template <DeviceKind>
void dora_norm_rows(const DoraNormArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { find_norms<T>(args); });
}
template void dora_norm_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const DoraNormArgs&);

}  // namespace lathe::kernels
