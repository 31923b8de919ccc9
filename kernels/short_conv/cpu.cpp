#include "kernels/short_conv/bodies.h"

#include "kernels/short_conv/columns.h"
#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// B, C and x of a row, from the first column of a chunk on.
template <class T>
struct Row {
  const T *b, *c, *x;
  LATHE_INLINE Row(const ShortConv& conv, int64_t row, int64_t first)
      : b(row_of<T>(conv.bcx, row) + first), c(b + conv.columns), x(c + conv.columns) {}
  LATHE_INLINE Vec product(int64_t i, int n) const { return round_to<T>(load_some(b + i, n) * load_some(x + i, n)); }
};

// The sequence of a row, searched from the one of a row before it.
LATHE_INLINE int64_t sequence_of(const int32_t* bounds, int64_t row, int64_t sequence) {
  while (bounds[sequence + 1] <= row) ++sequence;
  return sequence;
}

// Where p of a token's predecessors is: in the pages, or to be made of a row of this batch again.
template <class T>
class Predecessors {
 public:
  Predecessors(const ShortConvForwardArgs& args, int64_t row, int64_t sequence, int64_t first)
      : args_(args), row_(row), first_(first), in_batch_(least(row - args.steps.bounds[sequence], args.taps - 1)) {
    count_ = in_batch_;
    if (args.kept.data == nullptr) return;
    const PagedSteps& steps = args.steps;
    const int64_t position = steps.contexts[sequence] - (steps.bounds[sequence + 1] - row);
    count_ = least(position, args.taps - 1);
    const int32_t* const table = steps.block_table + sequence * steps.max_pages;
    for (int k = in_batch_ + 1; k <= count_; ++k) {
      const int64_t from = position - k;
      kept_[k] = static_cast<const T*>(args.kept.data) + table[from / args.kept.page_size] * args.kept.page +
                 from % args.kept.page_size * args.kept.token + first;
    }
  }
  int count() const { return count_; }
  // Of the token that is k before.
  LATHE_INLINE Vec product(int k, int64_t i, int n) const {
    return k <= in_batch_ ? Row<T>(args_, row_ - k, first_).product(i, n) : load_some(kept_[k] + i, n);
  }

 private:
  const ShortConvForwardArgs& args_;
  int64_t row_, first_;
  int in_batch_, count_;
  const T* kept_[most_conv_taps];
};

template <class T>
void forward_row(const ShortConvForwardArgs& args, const ChunkTaps& weights, int64_t row, int64_t sequence,
                 int64_t first, int64_t count) {
  const Predecessors<T> before(args, row, sequence, first);
  const Row<T> own(args, row, first);
  T* const out = row_of<T>(args.out, row) + first;
  T* kept = nullptr;
  if (args.kept.data != nullptr)
    kept = static_cast<T*>(args.kept.data) + args.steps.token_page[row] * args.kept.page +
           args.steps.token_offset[row] * args.kept.token + first;
  for_row(count, [&](int64_t i, int n) {
    Vec sum = load_some(weights.bias + i, n);
    for (int k = before.count(); k > 0; --k)
      sum = fma(load_some(weights.taps[args.taps - 1 - k] + i, n), before.product(k, i, n), sum);
    const Vec product = own.product(i, n);
    if (kept != nullptr) store_some(kept + i, product, n);
    sum = fma(load_some(weights.taps[args.taps - 1] + i, n), product, sum);
    store_some(out + i, load_some(own.c + i, n) * round_to<T>(sum), n);
  });
}

template <class T>
void backward_row(const ShortConvBackwardArgs& args, const ChunkTaps& weights, int64_t row, int64_t sequence,
                  int64_t first, int64_t count) {
  const int last = args.taps - 1;
  const int before = least(row - args.cu_seqlens[sequence], last);
  const int after = least(args.cu_seqlens[sequence + 1] - 1 - row, last);
  const Row<T> own(args, row, first);
  const T* const grad_out = row_of<T>(args.grad_out, row) + first;
  T* const grad_b = row_of<T>(args.grad_bcx, row) + first;
  T *const grad_c = grad_b + args.columns, *const grad_x = grad_c + args.columns;
  for_row(count, [&](int64_t i, int n) {
    Vec convolved = load_some(weights.bias + i, n);
    for (int k = before; k >= 0; --k)
      convolved = fma(load_some(weights.taps[last - k] + i, n), Row<T>(args, row - k, first).product(i, n), convolved);
    store_some(grad_c + i, load_some(grad_out + i, n) * round_to<T>(convolved), n);
    Vec of_product = zero();
    for (int k = 0; k <= after; ++k) {
      const Vec gated = load_some(row_of<T>(args.grad_out, row + k) + first + i, n) *
                        load_some(Row<T>(args, row + k, first).c + i, n);
      of_product = fma(load_some(weights.taps[last - k] + i, n), gated, of_product);
    }
    store_some(grad_b + i, of_product * load_some(own.x + i, n), n);
    store_some(grad_x + i, of_product * load_some(own.b + i, n), n);
  });
}

// body(weights, row, sequence, first column, columns) for each row, a chunk of columns after the other.
template <class T, class Args, class Body>
LATHE_INLINE void for_each_row(const Args& args, const int32_t* bounds, const Body& body) {
  for_each_chunk<T>(args, 0, args.columns, [&](const ChunkTaps& weights, int64_t first, int64_t count) {
    int64_t sequence = 0;
    for (int64_t row = args.row_begin; row < args.row_end; ++row) {
      sequence = sequence_of(bounds, row, sequence);
      body(weights, row, sequence, first, count);
    }
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void short_conv_forward_rows(ShortConvForwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_row<T>(args, args.steps.bounds,
                    [&](const ChunkTaps& weights, int64_t row, int64_t sequence, int64_t first, int64_t count) {
                      forward_row<T>(args, weights, row, sequence, first, count);
                    });
  });
}
template void short_conv_forward_rows<Isa::LATHE_ISA>(ShortConvForwardArgs);

template <Isa>
void short_conv_backward_rows(ShortConvBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_row<T>(args, args.cu_seqlens,
                    [&](const ChunkTaps& weights, int64_t row, int64_t sequence, int64_t first, int64_t count) {
                      backward_row<T>(args, weights, row, sequence, first, count);
                    });
  });
}
template void short_conv_backward_rows<Isa::LATHE_ISA>(ShortConvBackwardArgs);

template <Isa>
void short_conv_weight_grad_columns(ShortConvWeightGradArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for_row(args.column_end - args.column_begin, [&](int64_t i, int count) {
      const int64_t column = args.column_begin + i;
      add_weight_gradients(
          args, column, count,
          [&](int64_t row, int64_t) {
            return load_some(row_of<T>(args.grad_out, row) + column, count) *
                   load_some(Row<T>(args, row, column).c, count);
          },
          [&](int64_t row) { return Row<T>(args, row, column).product(0, count); });
    });
  });
}
template void short_conv_weight_grad_columns<Isa::LATHE_ISA>(ShortConvWeightGradArgs);

}  // namespace lathe::kernels
