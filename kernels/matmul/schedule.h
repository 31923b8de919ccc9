// Products on the CPU.
#pragma once

#include <span>

#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// Cuts a product into tasks and runs them on the thread pool. How it is cut may depend on the number of threads; the
// order of no element's sum does.
void multiply_on_cpu(const ProductArgs& args);

// Products of one left operand in one parallel region: it is packed once. By weights in panels of words, of some rows
// and columns, without second pairs, and where is_one_pass(k, dtype).
void multiply_joined_on_cpu(std::span<const ProductArgs> products);
bool is_one_pass(int64_t k, DType dtype);

// Products of left operands of their own in one parallel region, by such weights. For few rows each: all left operands
// are packed at once.
void multiply_grouped_on_cpu(std::span<const ProductArgs> products);

}  // namespace lathe::kernels
