// Matrix products: against the f64 reference under every instruction set, and the same bits however they are reached.
#include "kernels/matmul/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "tests/kernels/matmul_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {

LATHE_CHECK_OPERATIONS(matmul_operations());

}  // namespace lathe::testing
