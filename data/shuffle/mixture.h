// Rows of several sources in one order without an end. Whose turn a position is, and which of its rows that source then
// gives, is a function of the position alone: nothing is remembered, and a run goes on at any position exactly.
//
// A source's share of the first n rows is n · weight / (sum of weights), off by less than log2(sources) + 1 rows at
// every n: the sources lie in a binary tree, and of the c rows that a node gives, its left half gives
// ⌊c · weight of the left half / weight of the node⌋. Each source gives all its rows before one comes again, in an
// order of its own for each of its epochs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::data {

struct MixtureSource {
  std::string name;
  int64_t rows = 0;
  int64_t weight = 0;  // of the sum of all; with weights that are the rows, every row comes once in an epoch of all
};

// Weights that people write (0.7, 2) as whole numbers, exact to a millionth. ConfigError (dataset) for one that is not
// a number from 0.000001 to 1000000.
int64_t whole_weight(double weight, const std::string& name);

enum class Order { shuffled, as_given };

class Mixture {
 public:
  // ConfigError (dataset) where there is no source, one without rows, or a weight that is not above 0.
  Mixture(std::vector<MixtureSource> sources, Order order, uint64_t seed);

  struct Place {
    size_t source;
    int64_t row;  // of that source
  };
  Place place(int64_t position) const;
  // The same row, counted through all sources.
  int64_t row(int64_t position) const;
  // How many of the first `positions` rows are each source's.
  std::vector<int64_t> drawn(int64_t positions) const;

  const std::vector<MixtureSource>& sources() const { return sources_; }
  int64_t rows() const { return row_begin_.back(); }  // of all sources

 private:
  int64_t left_share(int64_t count, size_t first, size_t middle, size_t last) const;

  std::vector<MixtureSource> sources_;
  std::vector<int64_t> row_begin_, weight_before_;  // of each source, and the sum
  Order order_;
  uint64_t seed_;
};

}  // namespace lathe::data
