// simt as a card of sm_90, whose kernels (*_sm_90a.cu) run while one of these lives.
#pragma once

#include "kernels/simt/options.h"

namespace lathe::testing {

class Hopper {
 public:
  explicit Hopper(simt::FiberOrder order = simt::FiberOrder::ascending) {
    simt::pretend(simt::Machine::hopper);
    simt::set_fiber_order(order);
  }
  ~Hopper() {
    simt::pretend(simt::Machine::two_cards);
    simt::set_fiber_order(simt::FiberOrder::ascending);
  }
  Hopper(const Hopper&) = delete;
  Hopper& operator=(const Hopper&) = delete;
};

}  // namespace lathe::testing
