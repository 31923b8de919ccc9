// Products on the CPU.
#pragma once

#include <span>

#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// Cuts a product into tasks and runs them on the thread pool. How it is cut may depend on the number of threads; the
// order of no element's sum does.
void multiply_on_cpu(const ProductArgs& args);

// Whether a product may be one of several of the same left operand, by weights in panels of words and without second
// pairs …
bool joins_on_cpu(const ProductArgs& product);
// … which are one parallel region, over a left operand that is packed once.
void multiply_joined_on_cpu(std::span<const ProductArgs> products);

}  // namespace lathe::kernels
