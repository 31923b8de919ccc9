// The backward walk: from the root through the recorded operations in descending order of their recording.
#include "autograd/node.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

// Hands the gradient on rather than sharing it: what nobody else sees may be worked in.
Tensor contiguous(Tensor gradient) {
  return gradient.is_contiguous() ? std::move(gradient) : kernels::cast(gradient, gradient.dtype());
}

// A gradient that may be written to: `slot` itself, or a copy where others look at its memory.
void make_exclusive(Tensor& slot) {
  if (exclusive(slot)) return;
  Tensor own = empty_like(slot);
  kernels::copy(own, slot);
  slot = std::move(own);
}

}  // namespace

void Node::check_saved() const {
  for (const SavedTensor& entry : saved) {
    if (!entry.tensor.defined() || entry.tensor.version() == entry.version) continue;
    throw NumericError("the backward of " + name() + " needs its saved tensor \"" + std::string(entry.name) + "\" (" +
                       describe(entry.tensor) + "), which was changed in place after the forward (version " +
                       std::to_string(entry.version) + " then, " + std::to_string(entry.tensor.version()) +
                       " now); change it after the backward, or change a copy");
  }
}

SavedTensor& Saved::find(std::string_view name, int index) {
  for (SavedTensor& saved : node_.saved) {
    if (saved.name == name && index-- == 0) return saved;
  }
  throw Error("the backward of " + node_.name() + " asks for \"" + std::string(name) +
              "\", which its forward did not save");
}

bool Saved::has(std::string_view name) const {
  for (const SavedTensor& saved : node_.saved) {
    if (saved.name == name) return true;
  }
  return false;
}

const Tensor& Saved::at(std::string_view name, int index) {
  SavedTensor& saved = find(name, index);
  if (!saved.producer) return saved.tensor;
  Node& producer = *saved.producer;
  if (!producer.recomputed.defined()) {
    if (producer.walked) {
      throw NumericError("the backward of " + node_.name() + " needs \"" + std::string(name) +
                         "\" again, but an earlier backward freed its source; sum the losses and walk once");
    }
    producer.check_saved();
    Saved kept(producer);
    producer.recomputed = producer.operation->recompute(kept);
  }
  return producer.recomputed;
}

Tensor Saved::take(std::string_view name) {
  SavedTensor& saved = find(name, 0);
  Tensor result = (*this)[name];
  saved = SavedTensor{};
  return result;
}

bool InputGradients::needed(int i) const { return edge(i).node != nullptr; }

const Edge& InputGradients::edge(int i) const { return node_.inputs[static_cast<size_t>(i)]; }

void InputGradients::add(int i, Tensor gradient) {
  if (!needed(i) || !gradient.defined()) return;
  if (gradient.shape() != form_of(edge(i)).shape) {
    throw ShapeError("the backward of " + node_.name() + " gave its input " + std::to_string(i) + " of shape " +
                     to_string(form_of(edge(i)).shape) + " a gradient of shape " + to_string(gradient.shape()));
  }
  walk_.deposit(edge(i), contiguous(std::move(gradient)));
}

InputGradients::Target InputGradients::target(int i) { return buffer(i, form_of(edge(i)).dtype); }

Tensor InputGradients::accumulator(int i) {
  Target target = buffer(i, accumulation_dtype(form_of(edge(i)).dtype));
  if (!target.accumulate) kernels::fill(target.tensor, 0.0);
  return target.tensor;
}

// The receiver's own where it has that dtype.
InputGradients::Target InputGradients::buffer(int i, DType dtype) {
  const Node::Form& form = form_of(edge(i));
  if (dtype == (edge(i).node->leaf ? accumulation_dtype(form.dtype) : form.dtype)) return walk_.target(edge(i));
  pending_.emplace_back(i, Tensor::empty(form.shape, dtype, form.device));
  return {pending_.back().second, false};
}

void InputGradients::deliver_pending() {
  for (auto& [input, tensor] : pending_) walk_.deposit(edge(input), std::move(tensor));
  pending_.clear();
}

void InputGradients::continue_through(std::span<const Variable> outputs, std::span<Tensor> grad_outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad() || !grad_outputs[i].defined()) continue;
    walk_.deposit(outputs[i].edge(), std::move(grad_outputs[i]));
  }
}

InputGradients::Target Walk::target(const Edge& edge) {
  if (edge.node->leaf) return {leaf_gradient(*edge.node), true};
  schedule(edge.node);
  Tensor& slot = slot_of(edge);
  if (slot.defined()) {
    // Also where the sum must first be copied, it goes on in the same kernel: bits do not depend on who shares memory.
    make_exclusive(slot);
    return {slot, true};
  }
  const Node::Form& form = form_of(edge);
  slot = Tensor::empty(form.shape, form.dtype, form.device);
  return {slot, false};
}

void Walk::deposit(const Edge& edge, Tensor contribution) {
  if (edge.node->leaf) {
    const Tensor& gradient = leaf_gradient(*edge.node);
    return kernels::add(gradient, gradient, contribution);
  }
  schedule(edge.node);
  Tensor& slot = slot_of(edge);
  if (!slot.defined()) {
    slot = kernels::cast(contribution, form_of(edge).dtype);
  } else if (!exclusive(slot) && exclusive(contribution) && contribution.dtype() == slot.dtype()) {
    kernels::add(contribution, slot, contribution);
    slot = std::move(contribution);
  } else {
    Tensor sum = in_place_or_fresh(slot);
    kernels::add(sum, slot, contribution);
    slot = std::move(sum);
  }
}

void Walk::schedule(const std::shared_ptr<Node>& node) {
  if (node->walked) {
    throw NumericError(
        "a graph can be walked backward once, because the walk frees what the operations saved; sum the "
        "losses and walk once, or run the forward again");
  }
  pending_.emplace(node->sequence, node);
}

void Walk::run() {
  const RecordingScope no_recording(Recording::off);
  while (!pending_.empty()) {
    const std::shared_ptr<Node> node = std::move(pending_.begin()->second);
    pending_.erase(pending_.begin());
    visit(*node);
  }
}

void Walk::visit(Node& node) {
  node.check_saved();
  std::vector<Tensor> grad_outputs(node.gradients.size());
  node.gradients.swap(grad_outputs);
  Saved saved(node);
  InputGradients grads(node, *this);
  {
    const OperationTimer timer(*node.operation, Direction::backward);
    node.operation->vjp(saved, grad_outputs, grads);
    grads.deliver_pending();
  }
  node.release();
}

namespace {

void check_root(const Variable& root) {
  if (!root.requires_grad())
    throw NumericError("backward has nothing to do: its root depends on no leaf, or was computed in a NoGradScope");
}

void check_root(const Variable& root, const Tensor& cotangent) {
  check_root(root);
  if (cotangent.shape() != root.shape() || cotangent.dtype() != root.dtype())
    throw ShapeError("the gradient of the root must be like the root, " + describe(root.value()) + ", not " +
                     describe(cotangent));
}

}  // namespace

void backward(std::initializer_list<std::pair<Variable, Tensor>> roots) {
  Walk walk;
  for (const auto& [root, cotangent] : roots) {
    if (!cotangent.defined()) continue;
    check_root(root, cotangent);
    walk.deposit(root.edge(), contiguous(cotangent));
  }
  walk.run();
}

void backward(const Variable& root, Tensor cotangent) {
  if (!cotangent.defined()) {
    check_root(root);
    if (root.value().numel() != 1) {
      throw ShapeError("backward from " + describe(root.value()) +
                       " needs the gradient of the root: only a single element's is one by itself");
    }
    cotangent = empty_like(root.value());
    kernels::fill(cotangent, 1.0);
  } else {
    check_root(root, cotangent);
  }
  Walk walk;
  walk.deposit(root.edge(), contiguous(std::move(cotangent)));
  walk.run();
}

}  // namespace lathe::autograd
