// The largest eigenvalues of a symmetric matrix with their vectors, in f64, in a fixed order of every sum.
#pragma once

#include <cstdint>
#include <vector>

namespace lathe::nn {

struct EigenPairs {
  std::vector<double> values;   // descending
  std::vector<double> vectors;  // [count, n]: a unit vector of each value in a row
};

// Of a matrix [n, n], row by row, which is used up. Householder's reduction to a tridiagonal matrix, bisection for the
// values, inverse iteration for the vectors (Golub and Van Loan, Matrix Computations, 8.3 and 8.4): about 2n³
// operations, whatever the count, which is at most n. Equal values have vectors at right angles to each other.
EigenPairs largest_eigenpairs(std::vector<double> matrix, int64_t n, int64_t count);

}  // namespace lathe::nn
