// How an applied operation becomes a node.
#include <algorithm>
#include <atomic>

#include "autograd/node.h"
#include "autograd/recording.h"

namespace lathe::autograd {

static std::atomic<uint64_t> next_sequence{1};

Node::Node() : sequence(next_sequence.fetch_add(1, std::memory_order_relaxed)) {}

// A long chain of nodes would be freed by as deep a recursion; here the links are cut one node after another.
Node::~Node() {
  std::vector<std::shared_ptr<Node>> chain;
  const auto cut = [&chain](Node& node) {
    for (Edge& edge : node.inputs) chain.push_back(std::move(edge.node));
    for (SavedTensor& saved : node.saved) chain.push_back(std::move(saved.producer));
    node.inputs.clear();
    node.operation.reset();  // may hold inputs, too
  };
  cut(*this);
  while (!chain.empty()) {
    const std::shared_ptr<Node> node = std::move(chain.back());
    chain.pop_back();
    if (node.use_count() == 1) cut(*node);
  }
}

std::string Node::name() const { return operation ? std::string(operation->name()) : "leaf"; }

void Node::release() {
  walked = true;
  saved.clear();
  recomputed = {};
  inputs.clear();
  operation.reset();
}

Forward::Forward(std::span<const Variable> inputs) : inputs_(inputs) {
  const bool needed =
      std::any_of(inputs.begin(), inputs.end(), [](const Variable& input) { return input.requires_grad(); });
  recording_ = needed && recording_state.mode == Recording::on;
  if (needed) recording_state.observed = true;
}

void Forward::save(std::string_view name, const Tensor& tensor) {
  if (recording_ && tensor.defined()) saved_.push_back({name, tensor, tensor.version(), nullptr});
}

void Forward::save_input(std::string_view name, int i) {
  if (!recording_) return;
  const Edge& edge = inputs_[static_cast<size_t>(i)].edge();
  const bool recomputable =
      edge.node && edge.output == 0 && !edge.node->leaf && !edge.node->walked && edge.node->operation->can_recompute();
  if (recomputable) {
    saved_.push_back({name, Tensor(), 0, edge.node});
  } else {
    save(name, input(i));
  }
}

Outputs::Outputs(Forward& forward, std::unique_ptr<Operation> operation) {
  variables_.reserve(forward.outputs_.size());
  if (!operation) {
    for (Tensor& value : forward.outputs_) variables_.emplace_back(std::move(value));
    return;
  }
  auto node = std::make_shared<Node>();
  node->operation = std::move(operation);
  for (const Variable& input : forward.inputs_) node->inputs.push_back(input.edge());
  node->saved = std::move(forward.saved_);
  node->gradients.resize(forward.outputs_.size());
  for (Tensor& value : forward.outputs_) {
    node->outputs.push_back({value.shape(), value.dtype(), value.device()});
    variables_.emplace_back(std::move(value), Edge{node, static_cast<int>(variables_.size())});
  }
}

Tensor empty_like(const Tensor& tensor) { return Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device()); }

bool exclusive(const Tensor& tensor) {
  return tensor.defined() && tensor.storage().use_count() == 1 && tensor.storage()->owned();
}

Tensor in_place_or_fresh(const Tensor& tensor) {
  return exclusive(tensor) && tensor.is_contiguous() ? tensor : empty_like(tensor);
}

}  // namespace lathe::autograd
