#include "autograd/variable.h"

#include "autograd/node.h"
#include "core/error.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

Node& leaf_of(const Variable& variable, const char* asked) {
  if (!variable.is_leaf()) {
    throw ShapeError(std::string(asked) + " is for leaves, but this Variable is " +
                     (variable.requires_grad() ? "the output of " + variable.edge().node->name() : "a constant") +
                     "; make it with Variable::leaf");
  }
  return *variable.edge().node;
}

}  // namespace

Variable Variable::leaf(Tensor value) {
  if (!value.defined() || !is_floating(value.dtype())) {
    throw ShapeError("a leaf holds a floating-point tensor, not " + (value.defined() ? describe(value) : "nothing"));
  }
  auto node = std::make_shared<Node>();
  node->leaf = true;
  node->outputs.push_back({value.shape(), value.dtype(), value.device()});
  node->gradients.resize(1);
  return Variable(std::move(value), Edge{std::move(node), 0});
}

bool Variable::is_leaf() const { return edge_.node && edge_.node->leaf; }

Tensor Variable::grad() const { return leaf_of(*this, "grad()").gradients[0]; }

void Variable::zero_grad() const {
  const Tensor& gradient = leaf_of(*this, "zero_grad()").gradients[0];
  if (gradient.defined()) kernels::fill(gradient, 0.0);
}

void Variable::set_grad(Tensor gradient) const {
  Node& node = leaf_of(*this, "set_grad()");
  if (gradient.defined()) {
    const bool fits =
        gradient.shape() == shape() && gradient.dtype() == accumulation_dtype(dtype()) && gradient.is_contiguous();
    if (!fits) {
      throw ShapeError("the gradient of a leaf " + describe(value_) + " accumulates in a contiguous " +
                       std::string(name_of(accumulation_dtype(dtype()))) + to_string(shape()) + ", not in " +
                       describe(gradient));
    }
  }
  node.gradients[0] = std::move(gradient);
}

Tensor& leaf_gradient(Node& leaf) {
  Tensor& gradient = leaf.gradients[0];
  const Node::Form& form = leaf.outputs[0];
  if (!gradient.defined()) {
    gradient = Tensor::zeros(form.shape, accumulation_dtype(form.dtype), form.device, MemoryTag::gradients);
  }
  return gradient;
}

}  // namespace lathe::autograd
