// Times operations with Google Benchmark.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/kernels/ceilings.h"
#include "core/device.h"
#include "tests/support/operation_cases.h"

namespace lathe::bench {

struct TimingOptions {
  Device device = {};
  std::string filter;             // a regular expression that the name must contain; empty: all
  std::optional<double> seconds;  // of each repetition; a card's times spread little, and its list is long
  int repetitions = 5;
};

struct Timing {
  std::string name;  // rms_norm_forward/t512_h576_f32
  DType dtype = DType::f32;
  double seconds = 0, fastest = 0, slowest = 0;  // of one call: the median repetition, and the extremes
  double flops = 0, bytes = 0;                   // of one call
  double bytes_read = 0;                         // of bytes
  std::optional<double> peer_seconds;            // of the product alone by cuBLASLt, timed after it

  // The floor: the time that the call takes at least, by whichever of the three is highest.
  enum class Floor { arithmetic, reading, bandwidth };
  struct Bound {
    Floor floor;
    double seconds;
  };
  Bound bound(const Ceilings& ceilings) const;
  double fraction(const Ceilings& ceilings) const { return bound(ceilings).seconds / seconds; }
};

// Calls `report` as each is done. Each call gets buffers of its own in turn, until all together are three times the
// last cache: what is timed comes from memory, as between two other operations of a model.
void time_operations(const std::vector<testing::Operation>& operations, const TimingOptions& options,
                     const std::function<void(const Timing&)>& report);

}  // namespace lathe::bench
