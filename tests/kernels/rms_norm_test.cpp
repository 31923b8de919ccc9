#include "tests/kernels/rms_norm_cases.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::rms_norm_operations());
