#include "tests/kernels/experts_cases.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::experts_operations());
