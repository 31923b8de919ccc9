#include "kernels/rms_norm/bodies.h"

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
void forward_row(const RmsNormForwardArgs& args, int64_t row) {
  const T* x = row_of<T>(args.x, row);
  T* out = row_of<T>(args.out, row);
  const T* weight = static_cast<const T*>(args.weight);
  const T* normed = x;
  float squares;
  if (args.residual.data != nullptr) {
    const T* residual = row_of<T>(args.residual, row);
    T* sum = row_of<T>(args.sum, row);
    squares = row_sum(args.columns, [&](Vec partial, int64_t i, int count) {
      const Vec s = round_to<T>(load_some(x + i, count) + load_some(residual + i, count));
      store_some(sum + i, s, count);
      return fma(s, s, partial);
    });
    normed = sum;
  } else {
    squares = row_sum(args.columns, [&](Vec partial, int64_t i, int count) {
      const Vec v = load_some(x + i, count);
      return fma(v, v, partial);
    });
  }
  const float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(args.columns) + args.eps);
  if (args.rstd != nullptr) args.rstd[row] = rstd;
  const Vec scale = splat(rstd);
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec n = round_to<T>(load_some(normed + i, count) * scale);
    store_some(out + i, n * load_some(weight + i, count), count);
  });
}

template <class T>
void backward_row(const RmsNormBackwardArgs& args, int64_t row) {
  const T* x = row_of<T>(args.x, row);
  const T* grad_out = row_of<T>(args.grad_out, row);
  const T* grad_sum = args.grad_sum.data != nullptr ? row_of<T>(args.grad_sum, row) : nullptr;
  const T* weight = static_cast<const T*>(args.weight);
  T* grad_x = row_of<T>(args.grad_x, row);
  const Vec rstd = splat(args.rstd[row]);
  const float products = row_sum(args.columns, [&](Vec partial, int64_t i, int count) {
    const Vec g = load_some(grad_out + i, count) * load_some(weight + i, count);
    return fma(g, load_some(x + i, count) * rstd, partial);
  });
  const Vec mean = splat(products / static_cast<float>(args.columns));
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec g = load_some(grad_out + i, count) * load_some(weight + i, count);
    const Vec n = load_some(x + i, count) * rstd;
    Vec result = rstd * (g - n * mean);
    if (grad_sum != nullptr) result = result + load_some(grad_sum + i, count);
    store_some(grad_x + i, result, count);
  });
}

// Four vectors of columns at a time: each column's sum over a sequence is one chain in the tokens' order.
template <class T>
void weight_grad(const RmsNormWeightGradArgs& args) {
  constexpr int width = 4;
  for (int64_t column = args.column_begin; column < args.column_end; column += width * lanes) {
    int counts[width];
    for (int k = 0; k < width; ++k) {
      const int64_t left = args.column_end - column - k * lanes;
      counts[k] = left >= lanes ? lanes : left > 0 ? static_cast<int>(left) : 0;
    }
    for (int64_t sequence = 0; sequence < args.sequences; ++sequence) {
      Vec sums[width] = {};
      for (int64_t t = args.cu_seqlens[sequence]; t < args.cu_seqlens[sequence + 1]; ++t) {
        const T* x = row_of<T>(args.x, t) + column;
        const T* grad_out = row_of<T>(args.grad_out, t) + column;
        const Vec rstd = splat(args.rstd[t]);
        for (int k = 0; k < width; ++k) {
          if (counts[k] == 0) continue;
          const Vec n = load_some(x + k * lanes, counts[k]) * rstd;
          sums[k] = fma(load_some(grad_out + k * lanes, counts[k]), n, sums[k]);
        }
      }
      float* grad_weight = args.grad_weight + column;
      for (int k = 0; k < width; ++k) {
        if (counts[k] == 0) continue;
        store_some(grad_weight + k * lanes, load_some(grad_weight + k * lanes, counts[k]) + sums[k], counts[k]);
      }
    }
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void rms_norm_forward_rows(RmsNormForwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) forward_row<T>(args, row);
  });
}
template void rms_norm_forward_rows<Isa::LATHE_ISA>(RmsNormForwardArgs);

template <Isa>
void rms_norm_backward_rows(RmsNormBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) backward_row<T>(args, row);
  });
}
template void rms_norm_backward_rows<Isa::LATHE_ISA>(RmsNormBackwardArgs);

template <Isa>
void rms_norm_weight_grad_columns(RmsNormWeightGradArgs args) {
  with_element(args.dtype, [&]<class T>(T) { weight_grad<T>(args); });
}
template void rms_norm_weight_grad_columns<Isa::LATHE_ISA>(RmsNormWeightGradArgs);

}  // namespace lathe::kernels
