#include "autograd/ops/whole_sequences.h"

#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

// Of x's shape, but for the rows.
Tensor empty_rows(int64_t rows, const Tensor& x) {
  const auto extents = x.shape().dims();
  std::vector<int64_t> shape(extents.begin(), extents.end());
  shape[0] = rows;
  return Tensor::empty(Shape(shape), x.dtype(), x.device());
}

}  // namespace

WholeSequences::WholeSequences(const SharedPrefixes& shared) {
  const auto bounds = shared.layout.cu_seqlens.span<int32_t>();
  if (std::ssize(shared.lengths) != shared.layout.sequences())
    throw ShapeError("shared prefixes: " + std::to_string(shared.lengths.size()) + " of them for " +
                     std::to_string(shared.layout.sequences()) + " sequences");
  std::vector<int32_t> whole{0};
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    const int32_t prefix = shared.lengths[s], own = bounds[s + 1] - bounds[s];
    if (prefix > 0) {
      if (s == 0 || shared.lengths[s - 1] != 0 || prefix > bounds[s] - bounds[s - 1])
        throw ShapeError("shared prefixes: sequence " + std::to_string(s) + " takes " + std::to_string(prefix) +
                         " tokens that the one before it does not have as its own");
      pieces_.push_back({bounds[s - 1], whole.back(), prefix, true});
    }
    pieces_.push_back({bounds[s], whole.back() + prefix, own, false});
    whole.push_back(whole.back() + prefix + own);
  }
  rows_ = whole.back();
  cu_seqlens_ = Tensor::of(std::span<const int32_t>(whole), Shape{std::ssize(whole)}, MemoryTag::other);
}

Tensor WholeSequences::of(const Tensor& x, Again again) const {
  Tensor all = empty_rows(rows_, x);
  for (const Piece& piece : pieces_) {
    const Tensor to = all.slice(0, piece.whole, piece.whole + piece.count);
    piece.again&& again == Again::zeros ? kernels::fill(to, 0.0) : kernels::copy(to, piece.rows_of(x));
  }
  return all;
}

Tensor WholeSequences::once(const Tensor& all, int64_t rows) const {
  Tensor x = empty_rows(rows, all);
  for (const Piece& piece : pieces_)
    if (!piece.again) kernels::copy(piece.rows_of(x), all.slice(0, piece.whole, piece.whole + piece.count));
  return x;
}

Tensor WholeSequences::summed(const Tensor& all, int64_t rows) const {
  Tensor x = once(all, rows);
  for (const Piece& piece : pieces_) {
    if (!piece.again) continue;
    const Tensor row = piece.rows_of(x);
    kernels::add(row, row, all.slice(0, piece.whole, piece.whole + piece.count));
  }
  return x;
}

}  // namespace lathe::autograd
