#include "train/dpo/reference_logps.h"

#include <xxhash.h>

#include <memory>
#include <numeric>
#include <set>

#include "core/digits.h"
#include "core/error.h"
#include "kernels/cuda/runtime.h"
#include "nn/weights/safetensors.h"
#include "train/row_order.h"

namespace lathe::train {
namespace {

constexpr const char *chosen_name = "ref_chosen_logps", *rejected_name = "ref_rejected_logps";

// Of who made the values, of the rows, and of the values themselves: a damaged file is made again.
std::string mark(uint64_t identity, const TrainingSet& pairs, const Tensor& chosen, const Tensor& rejected) {
  uint64_t hash = XXH64(chosen.raw(), static_cast<size_t>(chosen.nbytes()), identity);
  hash = XXH64(rejected.raw(), static_cast<size_t>(rejected.nbytes()), hash);
  return hash_digits(identity) + "-" + hash_digits(pairs.fingerprint()) + "-" + hash_digits(hash);
}

}  // namespace

std::optional<PairPass> ReferenceLogps::pass(std::span<const int64_t> rows, const std::optional<std::string>& adapter) {
  std::set<int64_t> unknown;
  for (const int64_t row : rows)
    if (!asked_[static_cast<size_t>(row)]) unknown.insert(row);
  const std::vector<int64_t> missing(unknown.begin(), unknown.end());
  if (missing.empty()) return {};
  PairForwardOptions options;
  options.adapter = adapter;
  options.measured = Measured::logps;
  options.ld_alpha = ld_alpha_;
  for (const int64_t row : missing) asked_[static_cast<size_t>(row)] = true;
  return pair_pass(model_, pairs_, missing, settings_, options,
                   [known = known_, missing](size_t first, std::span<const PairSums> sums, std::span<PairGradient>) {
                     for (size_t i = 0; i < sums.size(); ++i)
                       (*known)[static_cast<size_t>(missing[first + i])] =
                           ReferencePair{sums[i].chosen.logps, sums[i].rejected.logps};
                     return 0.0;
                   });
}

void ReferenceLogps::compute(std::span<const int64_t> rows, const std::optional<std::string>& adapter) {
  if (const std::optional<PairPass> missing = pass(rows, adapter))
    queue_pairs(*missing, HostPart<PairWork>::of(missing->work));
}

void ReferenceLogps::compute_all(const std::optional<std::string>& adapter, const DataParallel& parallel) {
  std::vector<int64_t> rows(known_->size());
  std::iota(rows.begin(), rows.end(), 0);
  const std::span<const int64_t> own = rows_of_ranks(rows, parallel.ranks(), parallel.world_size());
  compute(own, adapter);
  kernels::synchronize(model_.device());
  const auto begin = static_cast<size_t>(own.data() - rows.data());
  share(parallel, begin, begin + own.size());
}

void ReferenceLogps::share(const DataParallel& parallel, size_t begin, size_t end) {
  if (!parallel.several()) return;
  Values& known = *known_;
  std::vector<double> values(2 * known.size());
  for (size_t row = begin; row < end; ++row) {
    values[2 * row] = known[row]->chosen_logps;
    values[2 * row + 1] = known[row]->rejected_logps;
  }
  parallel.gather(values, 2 * begin, 2 * end);
  for (size_t row = 0; row < known.size(); ++row) known[row] = ReferencePair{values[2 * row], values[2 * row + 1]};
  std::fill(asked_.begin(), asked_.end(), true);
}

void ReferenceLogps::save(const std::filesystem::path& file, uint64_t identity) const {
  const Tensor chosen = Tensor::empty({pairs_.rows()}, DType::f64),
               rejected = Tensor::empty({pairs_.rows()}, DType::f64);
  for (int64_t row = 0; row < pairs_.rows(); ++row) {
    chosen.data<double>()[row] = (*this)[row].chosen_logps;
    rejected.data<double>()[row] = (*this)[row].rejected_logps;
  }
  nn::write_safetensors(file, {{chosen_name, chosen}, {rejected_name, rejected}},
                        {{"made_by", mark(identity, pairs_, chosen, rejected)}});
}

bool ReferenceLogps::load(const std::filesystem::path& file, uint64_t identity) {
  if (!std::filesystem::is_regular_file(file)) return false;
  std::shared_ptr<const nn::SafetensorsFile> found;
  try {
    found = nn::SafetensorsFile::open(file);
  } catch (const FormatError&) {
    return false;
  }
  for (const char* name : {chosen_name, rejected_name})
    if (!found->contains(name) || found->tensor(name).dtype() != DType::f64 ||
        found->tensor(name).shape() != Shape{pairs_.rows()})
      return false;
  const Tensor chosen = found->tensor(chosen_name), rejected = found->tensor(rejected_name);
  const auto made_by = found->metadata().find("made_by");
  if (made_by == found->metadata().end() || made_by->second != mark(identity, pairs_, chosen, rejected)) return false;
  for (int64_t row = 0; row < pairs_.rows(); ++row)
    (*known_)[static_cast<size_t>(row)] = ReferencePair{chosen.data<double>()[row], rejected.data<double>()[row]};
  std::fill(asked_.begin(), asked_.end(), true);
  return true;
}

}  // namespace lathe::train
