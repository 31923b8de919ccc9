// gated_delta: against the f64 reference on every device and instruction set.
#include "tests/kernels/gated_delta_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::gated_delta_operations());

}  // namespace lathe::kernels
