// Products by NVIDIA's cuBLASLt, the peer that lathe-bench times ours beside. The library is loaded when a product is
// first made: it has half a gigabyte, and programs start without it. No operation uses it, as it promises no bits.
#pragma once

#include <memory>
#include <string>

#include "core/tensor.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// Empty, or why products cannot be made there: no card, a build without CUDA, no library.
std::string why_no_cublaslt(Device device);

// out [m, n] = left · right (+ out where it accumulates), operands as the layout has them, f32, bf16 or f16 alike, out
// of their dtype or f32; sums in f32. By the algorithm that cuBLASLt proposes first, with 32 MiB of workspace.
struct CublasltArgs {
  ProductLayout layout;
  Tensor out, left, right;
  bool accumulates = false;
};

class CublasltProduct {
 public:
  // ShapeError where the operands do not fit, Error with what cuBLASLt says.
  explicit CublasltProduct(const CublasltArgs& args);
  ~CublasltProduct();
  CublasltProduct(const CublasltProduct&) = delete;
  CublasltProduct& operator=(const CublasltProduct&) = delete;

  void queue() const;  // on the device's stream, where a graph may be capturing

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

}  // namespace lathe::kernels
