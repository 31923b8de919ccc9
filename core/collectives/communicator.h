// What a group of processes (or cards), numbered by rank, does together. Every rank calls the same operations in the
// same order with the same extents and dtypes.
//
// Sums are deterministic, and every rank gets the same bits. One process and MPI add in ascending ranks, in f32 for
// f32, bf16 and f16 (f64 for f64, wrapping integers), and round once; what NCCL does stands in nccl.h.
#pragma once

#include <memory>

#include "core/tensor.h"

namespace lathe {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Tensors are contiguous and on the communicator's device; any dtype, but sums take f32, bf16, f16, f64, i32 and i64.
  // ShapeError otherwise. A failure of the transport is a ResourceError.

  // tensor = Σ over the ranks of tensor.
  virtual void all_reduce_sum(const Tensor& tensor) = 0;
  // tensor = the root's tensor.
  virtual void broadcast(const Tensor& tensor, int root) = 0;
  // out: every rank's `in`, one after another by rank; out.numel() = size() · in.numel().
  virtual void all_gather(const Tensor& out, const Tensor& in) = 0;
  // out: this rank's part of Σ over the ranks of `in`, cut into size() equal parts; in.numel() = size() · out.numel().
  virtual void reduce_scatter_sum(const Tensor& out, const Tensor& in) = 0;
  // Returns when every rank has come here.
  virtual void barrier() = 0;
};

// A group of one.
std::unique_ptr<Communicator> one_process_communicator();

// What the implementations check before they call on a transport.
namespace collectives {

void expect_tensor(const char* operation, const char* argument, const Tensor& tensor, DeviceKind device);
void expect_summable(const char* operation, const Tensor& tensor);
// `whole` holds `parts` times what `part` does, in the same dtype.
void expect_parts(const char* operation, const Tensor& whole, const Tensor& part, int parts);
void expect_root(const char* operation, int root, int size);

}  // namespace collectives
}  // namespace lathe
