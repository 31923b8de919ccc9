#include "data/shuffle/mixture.h"

#include <cmath>

#include "core/error.h"
#include "data/shuffle/permutation.h"

namespace lathe::data {
namespace {

constexpr double weight_unit = 1e6;                  // whole weights in 1
constexpr int64_t most = int64_t{1} << 53;           // of a sum of weights or rows
constexpr uint64_t source_key = 0x9E3779B97F4A7C15;  // the seeds of sources are this far apart; the first has the run's

}  // namespace

int64_t whole_weight(double weight, const std::string& name) {
  if (!(weight >= 1 / weight_unit && weight <= weight_unit))
    throw ConfigError("dataset", "the weight of " + name + " must be a number from 0.000001 to 1000000, found " +
                                     std::to_string(weight) + "; leave out what is not to be drawn from");
  return std::llround(weight * weight_unit);
}

Mixture::Mixture(std::vector<MixtureSource> sources, Order order, uint64_t seed)
    : sources_(std::move(sources)), row_begin_{0}, weight_before_{0}, order_(order), seed_(seed) {
  if (sources_.empty()) throw ConfigError("dataset", "has no row to learn from");
  for (const MixtureSource& source : sources_) {
    const std::string name = source.name.empty() ? "" : source.name + " ";
    if (source.rows <= 0) throw ConfigError("dataset", name + "has no row to learn from");
    if (source.weight <= 0 || source.weight > most - weight_before_.back() || source.rows > most - row_begin_.back())
      throw ConfigError("dataset", name + "has a weight or rows beyond what can be counted");
    row_begin_.push_back(row_begin_.back() + source.rows);
    weight_before_.push_back(weight_before_.back() + source.weight);
  }
}

// Of `count` rows of the sources [first, last), those of [first, middle).
int64_t Mixture::left_share(int64_t count, size_t first, size_t middle, size_t last) const {
  __extension__ typedef unsigned __int128 Wide;
  const auto left = static_cast<Wide>(weight_before_[middle] - weight_before_[first]);
  const auto all = static_cast<Wide>(weight_before_[last] - weight_before_[first]);
  return static_cast<int64_t>(static_cast<Wide>(count) * left / all);
}

Mixture::Place Mixture::place(int64_t position) const {
  size_t first = 0, last = sources_.size();
  int64_t before = position;  // rows that [first, last) has given
  while (last - first > 1) {
    const size_t middle = (first + last) / 2;
    const int64_t left = left_share(before, first, middle, last);
    if (left_share(before + 1, first, middle, last) > left) {
      before = left;
      last = middle;
    } else {
      before -= left;
      first = middle;
    }
  }
  const int64_t rows = sources_[first].rows, at = before % rows;
  if (order_ == Order::as_given) return {first, at};
  const Permutation permutation(static_cast<uint64_t>(rows), seed_ + first * source_key,
                                static_cast<uint64_t>(before / rows));
  return {first, static_cast<int64_t>(permutation(static_cast<uint64_t>(at)))};
}

int64_t Mixture::row(int64_t position) const {
  const Place found = place(position);
  return row_begin_[found.source] + found.row;
}

std::vector<int64_t> Mixture::drawn(int64_t positions) const {
  std::vector<int64_t> counts(sources_.size());
  struct Node {
    size_t first, last;
    int64_t count;
  };
  std::vector<Node> nodes = {{0, sources_.size(), positions}};
  while (!nodes.empty()) {
    const auto [first, last, count] = nodes.back();
    nodes.pop_back();
    if (last - first == 1) {
      counts[first] = count;
      continue;
    }
    const size_t middle = (first + last) / 2;
    const int64_t left = left_share(count, first, middle, last);
    nodes.push_back({first, middle, left});
    nodes.push_back({middle, last, count - left});
  }
  return counts;
}

}  // namespace lathe::data
