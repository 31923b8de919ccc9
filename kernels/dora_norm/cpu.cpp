#include "kernels/dora_norm/bodies.h"
#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// `lanes` doubles, which the compiler splits over registers.
typedef double VecD __attribute__((vector_size(8 * lanes)));

// (A result would be returned in registers that not every set has.)
template <class T>
LATHE_INLINE void widen(VecD& wide, const T* from, int count) {
  wide = __builtin_convertvector(load_some(from, count), VecD);
}

template <class T>
void square_row(const RowSquaresArgs& args, int64_t row) {
  const T* x = row_of<T>(args.rows, row);
  double sum = 0;
  for_row(args.columns, [&](int64_t i, int count) {
    VecD value;
    widen(value, x + i, count);
    const VecD square = value * value;
    for (int lane = 0; lane < count; ++lane) sum += square[lane];
  });
  args.squares[row] = sum;
}

// gram's row k for its column k: neighbours j in a vector, each with its chain along k.
template <class T>
void norm_of_row(const DoraNormArgs& args, int64_t row) {
  const T* b = static_cast<const T*>(args.b) + row * args.rank;
  double linear = 0, quadratic = 0;
  for_row(args.rank, [&](int64_t j, int count) {
    VecD rows = {}, factors, gram;
    for_row(args.rank, [&](int64_t k, int several) {
      widen(factors, b + k, several);
      for (int i = 0; i < several; ++i) {
        widen(gram, args.gram + (k + i) * args.rank + j, count);
        rows += factors[i] * gram;
      }
    });
    widen(factors, b + j, count);
    const VecD terms = factors * rows;
    for (int lane = 0; lane < count; ++lane) {
      linear += factors[lane] * static_cast<double>(args.products[(j + lane) * args.rows + row]);
      quadratic += terms[lane];
    }
  });
  const double s = args.scaling, square = args.squares[row] + 2 * s * linear + s * s * quadratic;
  const auto norm = static_cast<float>(square > 0 ? __builtin_sqrt(square) : 0.0);
  if (args.norm != nullptr) args.norm[row] = norm;
  if (args.inverse != nullptr) args.inverse[row] = norm > 0 ? 1 / norm : 0;
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void row_squares_rows(RowSquaresArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) square_row<T>(args, row);
  });
}
template void row_squares_rows<Isa::LATHE_ISA>(RowSquaresArgs);

template <Isa>
void dora_norm_rows(DoraNormArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) norm_of_row<T>(args, row);
  });
}
template void dora_norm_rows<Isa::LATHE_ISA>(DoraNormArgs);

}  // namespace lathe::kernels
