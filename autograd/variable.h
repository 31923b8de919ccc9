// A Variable is a tensor plus the place on the tape that its gradient flows to. It is a handle: copies are
// cheap and share both. The Tensor below it knows nothing of gradients.
#pragma once

#include <initializer_list>
#include <memory>
#include <utility>

#include "core/tensor.h"

namespace lathe::autograd {

class Node;  // one recorded operation, or one leaf (autograd/node.h)

// Where a gradient flows: an output of a recorded operation, or a leaf. Empty for constants.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
};

class Variable {
 public:
  Variable() = default;                                       // undefined: an optional input that is not given
  Variable(Tensor constant) : value_(std::move(constant)) {}  // no gradient flows to it
  Variable(Tensor value, Edge edge) : value_(std::move(value)), edge_(std::move(edge)) {}

  // A trainable tensor (f32, bf16 or f64). Its gradient accumulates in f32 (f64 for f64), also where the value is bf16:
  // a bf16 compute copy of an f32 master weight is a leaf whose gradient is f32. Who changes the value in place (an
  // optimiser) calls value().bump_version().
  // Where one operation uses a leaf, micro-batches accumulate to the bits of their batch. Where several do (a tied
  // embedding), a batch adds use by use and micro-batches one by one: the last bit may differ.
  static Variable leaf(Tensor value);

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  int64_t dim(int i) const { return value_.dim(i); }
  DType dtype() const { return value_.dtype(); }
  bool requires_grad() const { return edge_.node != nullptr; }
  bool is_leaf() const;
  const Edge& edge() const { return edge_; }
  // The same tensor as a constant.
  Variable detach() const { return Variable(value_); }

  // Leaves only (anything else is a ShapeError).
  // The accumulated gradient of value's shape, f32 or f64; undefined until the first backward reaches the
  // leaf.
  Tensor grad() const;
  // Fills the gradient with zeros and keeps its memory.
  void zero_grad() const;
  // Accumulate into this buffer from now on (contiguous, value's shape, f32 | f64): parts of one flat buffer,
  // say. An undefined tensor gives the memory back.
  void set_grad(Tensor gradient) const;

 private:
  Tensor value_;
  Edge edge_;
};

// Gradients of every leaf that `root` depends on, each added to what the leaf has. `cotangent` is the
// gradient of root (its shape and dtype); it may be left out for a single element, where it is one.
// Operations are visited in the reverse order of their recording, whatever the number of threads. What an
// operation saved is freed as the walk passes it, so a graph can be walked once: a second walk is a
// NumericError, and so are a saved tensor that was changed in place since, and a root that depends on no
// leaf.
void backward(const Variable& root, Tensor cotangent = {});
// One walk from several roots: the gradients of Σ cotangent · root. Those without a cotangent are left out.
void backward(std::initializer_list<std::pair<Variable, Tensor>> roots);

}  // namespace lathe::autograd
