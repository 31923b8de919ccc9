// Products on the CPU.
#pragma once

#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// Cuts a product into tasks and runs them on the thread pool. How it is cut may depend on the number of threads; the
// order of no element's sum does.
void multiply_on_cpu(const ProductArgs& args);

}  // namespace lathe::kernels
