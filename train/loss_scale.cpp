#include "train/loss_scale.h"

#include <limits>

namespace lathe::train {

void LossScale::update(bool overflowed) {
  if (overflowed) {
    scale *= backoff_factor;
    growth_tracker = 0;
    ++skipped_steps;
    return;
  }
  if (++growth_tracker < growth_interval) return;
  growth_tracker = 0;
  if (scale * growth_factor <= double{std::numeric_limits<float>::max()}) scale *= growth_factor;  // torch's is a float
}

}  // namespace lathe::train
