#include "kernels/embedding/plan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/copy/copy.h"

namespace lathe::kernels {

EmbeddingPlan::EmbeddingPlan(const Tensor& ids, const Tensor& cu_seqlens, Device device) {
  const auto id = ids.span<int32_t>(), ends = cu_seqlens.span<int32_t>();
  std::vector<int32_t> order(id.size()), sequence_of(id.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return id[static_cast<size_t>(a)] < id[static_cast<size_t>(b)]; });
  for (size_t s = 0; s + 1 < ends.size(); ++s) {
    std::fill(sequence_of.begin() + ends[s], sequence_of.begin() + ends[s + 1], static_cast<int32_t>(s));
  }

  std::vector<int32_t> row_id, row_piece, piece_start;
  for (size_t k = 0; k < order.size(); ++k) {
    const size_t token = static_cast<size_t>(order[k]), before = static_cast<size_t>(order[k == 0 ? 0 : k - 1]);
    const bool new_row = k == 0 || id[token] != id[before];
    if (new_row) {
      row_id.push_back(id[token]);
      row_piece.push_back(static_cast<int32_t>(piece_start.size()));
    }
    if (new_row || sequence_of[token] != sequence_of[before]) piece_start.push_back(static_cast<int32_t>(k));
  }
  rows_ = static_cast<int64_t>(row_id.size());
  pieces_ = static_cast<int64_t>(piece_start.size());
  row_piece.push_back(static_cast<int32_t>(piece_start.size()));
  piece_start.push_back(static_cast<int32_t>(order.size()));

  std::vector<int32_t> all;
  for (const auto* list : {&row_id, &row_piece, &piece_start, &order})
    all.insert(all.end(), list->begin(), list->end());
  const Shape shape{static_cast<int64_t>(all.size())};
  lists_ = Tensor::of<int32_t>(all, shape, MemoryTag::workspace);
  if (device.kind == DeviceKind::cpu) return;
  const Tensor there = Tensor::empty(shape, DType::i32, device, MemoryTag::workspace);
  copy(there, lists_);
  lists_ = there;
}

void EmbeddingPlan::describe_to(EmbeddingBackwardArgs& args) const {
  args.row_id = lists_.data<int32_t>();
  args.row_piece = args.row_id + rows_;
  args.piece_start = args.row_piece + rows_ + 1;
  args.order = args.piece_start + pieces_ + 1;
  args.row_begin = 0;
  args.row_end = rows_;
}

}  // namespace lathe::kernels
