#include "data/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>
#include <string>

#include "core/error.h"

namespace lathe::data {

MergeTable::MergeTable(std::span<const BpeMerge> merges) {
  if (merges.size() > most_rank)
    throw ConfigError("merges", "there are " + std::to_string(merges.size()) + ", more than the " +
                                    std::to_string(most_rank) + " that are supported");
  slots_.assign(std::bit_ceil(merges.size() * 2 + 16), free_slot);
  mask_ = slots_.size() - 1;
  shift_ = 64 - std::countr_zero(slots_.size());
  results_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    if (static_cast<uint64_t>(std::max(merge.left, merge.right)) > most_id)
      throw ConfigError("merges", "the id " + std::to_string(std::max(merge.left, merge.right)) + " is above the " +
                                      std::to_string(most_id) + " that are supported");
    const uint64_t pair = pair_of(merge.left, merge.right);
    size_t slot = slot_of(pair);
    while (slots_[slot] != free_slot && slots_[slot] >> rank_bits != pair) slot = (slot + 1) & mask_;
    slots_[slot] = pair << rank_bits | results_.size();
    results_.push_back(merge.result);
  }
}

}  // namespace lathe::data
