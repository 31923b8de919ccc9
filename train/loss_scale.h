// Dynamic loss scaling (Micikevicius et al. 2018) with the schedule and the numbers of torch.amp.GradScaler. In float16
// small gradients are lost and large ones overflow: the loss is multiplied by a scale before the backward, the
// gradients are divided by it before they are clipped, and the scale follows what float16 holds.
#pragma once

#include <cstdint>

namespace lathe::train {

struct LossScale {
  static constexpr double growth_factor = 2.0, backoff_factor = 0.5;
  static constexpr int64_t growth_interval = 2000;
  // torch halves it for ever; below 1 the gradients themselves do not fit.
  static constexpr double least = 1.0;

  double scale = 65536.0;      // a power of two: dividing by it loses nothing
  int64_t growth_tracker = 0;  // steps without overflow since the scale last changed
  int64_t skipped_steps = 0;   // in the whole run

  // After a backward. A step whose gradients overflowed is to be skipped: no weight, moment or learning rate changes.
  void update(bool overflowed);
};

}  // namespace lathe::train
