// The rows of whole sequences beside those of a layout in which what a sequence shares with the one before it has one
// row.
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/sequence_layout.h"
#include "core/tensor.h"

namespace lathe::autograd {

struct SharedPrefixes {
  SequenceLayout layout;  // of the rows: a sequence that shares has its other tokens alone, at their positions
  // For each sequence how many tokens it takes from the one before it, which takes none itself; 0 for none.
  std::vector<int32_t> lengths;
};

class WholeSequences {
 public:
  // ShapeError where a prefix is not what the sequence before has as its own.
  explicit WholeSequences(const SharedPrefixes& shared);

  const Tensor& cu_seqlens() const { return cu_seqlens_; }

  // x's rows (its first dimension), those that are shared repeated; where `again` is zeros these are 0.
  enum class Again { repeated, zeros };
  Tensor of(const Tensor& x, Again again = Again::repeated) const;
  // The other way: each row where it stands first.
  Tensor once(const Tensor& all, int64_t rows) const;
  // And what stands where it is repeated is added.
  Tensor summed(const Tensor& all, int64_t rows) const;

 private:
  struct Piece {
    int64_t row, whole, count;
    bool again;
    Tensor rows_of(const Tensor& x) const { return x.slice(0, row, row + count); }
  };
  std::vector<Piece> pieces_;
  int64_t rows_ = 0;
  Tensor cu_seqlens_;
};

}  // namespace lathe::autograd
