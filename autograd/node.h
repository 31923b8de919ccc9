// The tape's inside: recorded operations and leaves, linked from outputs to inputs. Nodes are numbered as
// they are recorded; an input's number is always below its consumer's, so a walk in descending numbers meets
// every consumer of a node before the node itself.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "autograd/operation.h"

namespace lathe::autograd {

class Node {
 public:
  struct Form {  // of an output
    Shape shape;
    DType dtype;
    Device device;
  };

  Node();
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  std::string name() const;
  void check_saved() const;  // NumericError when a saved tensor was changed in place
  void release();            // what the operation kept: it has been walked

  const uint64_t sequence;
  bool leaf = false;
  bool walked = false;
  std::unique_ptr<Operation> operation;  // null for a leaf
  std::vector<Edge> inputs;
  std::vector<Form> outputs;
  std::vector<SavedTensor> saved;
  std::vector<Tensor> gradients;  // of each output: what has arrived so far; a leaf's accumulated gradient
  Tensor recomputed;              // the first output, once a consumer has asked for it during the walk
};

inline const Node::Form& form_of(const Edge& edge) { return edge.node->outputs[static_cast<size_t>(edge.output)]; }
inline Tensor& slot_of(const Edge& edge) { return edge.node->gradients[static_cast<size_t>(edge.output)]; }
// f64 for f64, f32 for everything else.
inline DType accumulation_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }
Tensor& leaf_gradient(Node& leaf);  // zeros at first

// One backward pass.
class Walk {
 public:
  void deposit(const Edge& edge, Tensor contribution);
  InputGradients::Target target(const Edge& edge);  // of the receiver's own dtype
  void run();

 private:
  void schedule(const std::shared_ptr<Node>& node);
  void visit(Node& node);

  std::map<uint64_t, std::shared_ptr<Node>, std::greater<>> pending_;
};

}  // namespace lathe::autograd
