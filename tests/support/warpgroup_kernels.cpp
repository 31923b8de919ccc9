#include "tests/support/warpgroup_kernels.cu"
