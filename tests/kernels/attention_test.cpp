#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/kernels/attention_cases.h"
#include "tests/support/kernel_checks.h"

LATHE_CHECK_OPERATIONS(lathe::testing::attention_operations());
