// What penalties change in one row. Internal to this folder.
#pragma once

#include "kernels/sampling/sampling.h"

namespace lathe::kernels {

struct Penalty {
  int32_t token;
  int32_t count;  // in the output
};
// The tokens seen, ascending; none where no penalty is set. A token outside [0, vocabulary) throws ShapeError.
std::vector<Penalty> penalties_of(const SamplingRow& row, int64_t vocabulary);

}  // namespace lathe::kernels
