// Grids of ggml's IQ formats: a code is the index of an entry, which is a list of 4 or 8 neighbours' values. The device
// reads entries as they are here, the CPU as bytes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels::ggml {

template <int entry_count, int neighbour_count>
struct Grid {
  static constexpr int entries = entry_count, neighbours = neighbour_count;
  static constexpr int bits = 16 / neighbours;  // of a neighbour's code in an entry, the first one's lowest
  int8_t values[1 << (bits < 3 ? bits : 3)];    // what codes stand for
  uint16_t codes[entries];

  constexpr int value(int entry, int neighbour) const {
    return values[codes[entry] >> (bits * neighbour) & ((1 << bits) - 1)];
  }
};

// grid_of<Format>: defined where grid_codes.h is included (grid_of.h).
// An entry's values as bytes, the first neighbour's lowest.
template <int neighbours>
using GridWord = std::conditional_t<neighbours == 8, uint64_t, uint32_t>;

// The entries of a format's grid, and room for a load of 16 bytes from the last; made by expand_grids().
template <class Format>
struct ExpandedGrid {
  alignas(64) static inline GridWord<Format::grid_neighbours> words[Format::grid_entries + 4];
};
template <>
struct ExpandedGrid<IQ1_M> : ExpandedGrid<IQ1_S> {};

// Before blocks in panels are read; from any thread.
void expand_grids();

}  // namespace lathe::kernels::ggml
