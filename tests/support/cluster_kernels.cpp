#include "tests/support/cluster_kernels.cu"
