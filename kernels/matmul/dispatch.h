// How a product reaches its body on the CPU: those that have tiles (amx/) are apart from the other operations.
#pragma once

#include "kernels/dispatch.h"

namespace lathe::kernels {

// with_isa, and Isa::amx where it is active and the product `has_tiles`: one of bf16, or of ggml's blocks.
template <class Call>
void with_product_isa(bool has_tiles, const Call& call) {
  if (has_tiles && active_isa() == Isa::amx) return call.template operator()<Isa::amx>();
  with_isa(call);
}

}  // namespace lathe::kernels
