#include "kernels/attention/scratch.h"

#include <memory>

#include "core/memory.h"

namespace lathe::kernels {

float* attention_scratch(ScratchUse use, int64_t floats) {
  static thread_local std::shared_ptr<Storage> pieces[2];
  std::shared_ptr<Storage>& piece = pieces[static_cast<int>(use)];
  const int64_t bytes = floats * static_cast<int64_t>(sizeof(float));
  if (piece == nullptr || piece->nbytes() < bytes) {
    piece.reset();  // the old one's memory first
    piece = Storage::allocate(bytes, Device{}, MemoryTag::workspace);
  }
  return static_cast<float*>(piece->data());
}

}  // namespace lathe::kernels
