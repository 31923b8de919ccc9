#include "tests/kernels/softcap_cases.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::softcap_operations());
