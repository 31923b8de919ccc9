#include "kernels/embedding/plan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/embedding/embedding.h"

namespace lathe::kernels {

EmbeddingPlan EmbeddingPlan::of(const Tensor& ids, const Tensor& cu_seqlens) {
  const auto id = ids.span<int32_t>(), ends = cu_seqlens.span<int32_t>();
  const size_t tokens = id.size();
  std::vector<int32_t> sequence_of(tokens);
  for (size_t s = 0; s + 1 < ends.size(); ++s) {
    std::fill(sequence_of.begin() + ends[s], sequence_of.begin() + ends[s + 1], static_cast<int32_t>(s));
  }
  const Tensor lists = Tensor::zeros({embedding_plan_length(ids.numel())}, DType::i32, {}, MemoryTag::workspace);
  const auto row_id = lists.span<int32_t>();
  const auto row_piece = row_id.subspan(tokens), piece_start = row_piece.subspan(tokens + 1);
  const auto order = piece_start.subspan(tokens + 1);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return id[static_cast<size_t>(a)] < id[static_cast<size_t>(b)]; });

  size_t rows = 0, pieces = 0;
  for (size_t k = 0; k < tokens; ++k) {
    const auto token = static_cast<size_t>(order[k]), before = static_cast<size_t>(order[k == 0 ? 0 : k - 1]);
    const bool new_row = k == 0 || id[token] != id[before];
    if (new_row) {
      row_id[rows] = id[token];
      row_piece[rows++] = static_cast<int32_t>(pieces);
    }
    if (new_row || sequence_of[token] != sequence_of[before]) piece_start[pieces++] = static_cast<int32_t>(k);
  }
  std::fill(row_piece.begin() + static_cast<std::ptrdiff_t>(rows),
            row_piece.begin() + static_cast<std::ptrdiff_t>(tokens) + 1, static_cast<int32_t>(pieces));
  piece_start[pieces] = static_cast<int32_t>(tokens);
  return {lists, static_cast<int64_t>(rows)};
}

void EmbeddingPlan::describe_to(EmbeddingBackwardArgs& args) const {
  const int64_t tokens = (lists.numel() - 2) / 4;
  args.row_id = lists.data<int32_t>();
  args.row_piece = args.row_id + tokens;
  args.piece_start = args.row_piece + tokens + 1;
  args.order = args.piece_start + tokens + 1;
  args.row_begin = 0;
  args.row_end = rows;
}

}  // namespace lathe::kernels
