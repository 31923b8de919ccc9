#include "nn/packed_lora.h"

namespace lathe::nn {

PackedLora::Pair PackedLora::of(const Tensor& a, const Tensor& b) const {
  const std::lock_guard lock(mutex_);
  if (pair_.a.defined() && a_version_ == a.version() && b_version_ == b.version()) return pair_;
  pair_.a = kernels::pack_narrow(a, MemoryTag::adapters);
  pair_.b = kernels::pack_weight(b, b.dtype(), MemoryTag::adapters);
  a_version_ = a.version();
  b_version_ = b.version();
  return pair_;
}

}  // namespace lathe::nn
