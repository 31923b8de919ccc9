#include "tests/kernels/column_scale_cases.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::column_scale_operations());
