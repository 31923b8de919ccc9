// What a body is told of a [rows, columns] tensor whose rows are contiguous and lie a stride apart. Plain data, the
// same for CPU and CUDA bodies.
#pragma once

#include <cstdint>

namespace lathe {
class Tensor;
}

namespace lathe::kernels {

struct Matrix {
  void* data = nullptr;  // null: not there
  int64_t stride = 0;    // elements from row to row
};

struct ConstMatrix {
  const void* data = nullptr;
  int64_t stride = 0;
  ConstMatrix() = default;
  ConstMatrix(Matrix matrix) : data(matrix.data), stride(matrix.stride) {}
};

// Of an undefined tensor: a matrix that is not there.
Matrix matrix_of(const Tensor& tensor);

}  // namespace lathe::kernels
