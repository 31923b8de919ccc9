#include "kernels/paged_attention/state_slots.h"

#include <string>

#include "core/error.h"

namespace lathe::kernels {

void expect_state_slots(const char* operation, const PagedBatch& batch, int64_t slots) {
  if (!batch.has_states()) throw ShapeError(std::string(operation) + ": expected a batch with state_slots");
  for (int64_t s = 0; s < batch.sequences(); ++s)
    if (batch.state_slot(s) < 0 || batch.state_slot(s) >= slots)
      throw ShapeError(std::string(operation) + ": state_slots expects slots in [0, " + std::to_string(slots) +
                       "), found " + std::to_string(batch.state_slot(s)));
}

}  // namespace lathe::kernels
