// The public hook: how an operation joins the tape. Ours (autograd/ops/) and a user's are written alike:
//
//   struct Square final : Operation {                       // out = x²
//     std::string_view name() const override { return "square"; }
//     void forward(Forward& f) {
//       Tensor out = Tensor::empty(f.input(0).shape(), f.input(0).dtype());
//       …compute out…
//       f.save_input("x", 0);
//       f.output(out);
//     }
//     void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
//       Tensor grad_x = …2 · saved["x"] · grad_outputs[0]…;
//       grads.add(0, grad_x);
//     }
//   };
//   Variable square(const Variable& x) { return apply(Square{}, {x}); }
//
// Members of the struct are the operation's constants (a scale, a layout). autograd/gradcheck.h checks the
// vjp.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/variable.h"

namespace lathe::autograd {

class Walk;
class Saved;
class InputGradients;

class Operation {
 public:
  virtual ~Operation() = default;
  virtual std::string_view name() const = 0;
  // The vector-Jacobian product. grad_outputs[i] has output i's shape and dtype and is contiguous; it is
  // undefined where nothing flowed to that output (never all of them). vjp may keep or overwrite it as
  // reusable() says.
  virtual void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) = 0;
  // An operation whose single (first) output is cheap to compute again from what it saved offers to do so:
  // then operations that save that output keep nothing, and the walk calls recompute() once, before it passes
  // this one.
  virtual bool can_recompute() const { return false; }
  virtual Tensor recompute(Saved&) { return {}; }
};

// What forward() sees. Inputs are numbered as in apply(); an optional input that is not given is undefined.
class Forward {
 public:
  explicit Forward(std::span<const Variable> inputs);
  const Tensor& input(int i) const { return inputs_[i].value(); }
  bool needs(int i) const {
    return recording_ && inputs_[i].requires_grad();
  }  // its gradient will be asked for
  bool recording() const {
    return recording_;
  }  // false: nothing will be saved, so compute nothing for a backward

  // The explicit saved list, read back by name in vjp. A tensor changed in place before the walk reaches it
  // is an error that names the operation and `name` (a literal). save_input keeps nothing where the producer
  // recomputes.
  void save(std::string_view name, const Tensor& tensor);
  void save_input(std::string_view name, int i);
  void output(Tensor value) { outputs_.push_back(std::move(value)); }

  // Records although no input needs a gradient: leaves are used inside (checkpoint).
  void require_recording() { recording_ = true; }

 private:
  friend class Outputs;
  friend class Saved;
  struct Entry {
    std::string_view name;
    Tensor tensor;
    uint64_t version;
    std::shared_ptr<Node> producer;
  };
  friend class Node;
  std::span<const Variable> inputs_;
  std::vector<Entry> saved_;
  std::vector<Tensor> outputs_;
  bool recording_;
};

// The saved list in vjp and recompute.
class Saved {
 public:
  explicit Saved(Node& node) : node_(node) {}
  const Tensor& operator[](std::string_view name);
  bool has(std::string_view name) const;
  // Removes it from the list, so that reusable() may hand out its memory.
  Tensor take(std::string_view name);

 private:
  Node& node_;
};

// Where vjp puts the gradients of the inputs. Contributions to one input are summed in the order of the walk.
class InputGradients {
 public:
  InputGradients(Node& node, Walk& walk) : node_(node), walk_(walk) {}
  // False for constants, frozen weights and missing inputs: do no work for those.
  bool needed(int i) const;

  // Three ways to deliver; use one for each needed input.
  // 1. A tensor of the input's shape. It may be grad_outputs' own: memory is shared until somebody must
  // write.
  void add(int i, Tensor gradient);
  // 2. A buffer in the input's dtype, to be written whole (or, with accumulate, added to) before vjp does
  // anything
  //    else with `grads`: saves a pass where a kernel can add to what is there.
  struct Target {
    Tensor tensor;
    bool accumulate;
  };
  Target target(int i);
  // 3. A buffer in f32 (f64 for f64) to be added to: a leaf's own gradient, for kernels that sum over tokens.
  Tensor accumulator(int i);

  // Continues the walk through operations that vjp has just recorded on the inputs' own Variables
  // (checkpoint).
  void continue_through(std::span<const Variable> outputs, std::span<Tensor> grad_outputs);

  // Rounds the buffers that could not be handed out directly; the walk calls it after vjp.
  void flush();

 private:
  struct Pending {
    int input;
    Tensor tensor;
  };
  Node& node_;
  Walk& walk_;
  std::vector<Pending> pending_;
};

// What apply() returns: converts to the only output, or is indexed.
class Outputs {
 public:
  Outputs(Forward& forward,
          std::unique_ptr<Operation> operation);  // operation: null when nothing is recorded
  operator Variable() && { return std::move(variables_.at(0)); }
  const Variable& operator[](int i) const { return variables_.at(static_cast<size_t>(i)); }
  std::vector<Variable> all() && { return std::move(variables_); }

 private:
  std::vector<Variable> variables_;
};

// Runs the operation, and records it when an input needs a gradient and recording is on.
template <class Op>
Outputs apply(Op operation, std::span<const Variable> inputs) {
  Forward forward(inputs);
  operation.forward(forward);
  std::unique_ptr<Operation> recorded;
  if (forward.recording()) recorded = std::make_unique<Op>(std::move(operation));
  return Outputs(forward, std::move(recorded));
}
template <class Op>
Outputs apply(Op operation, std::initializer_list<Variable> inputs) {
  return apply(std::move(operation), std::span<const Variable>(inputs.begin(), inputs.size()));
}

// The tensor's own memory when nobody else looks at it (then `tensor` becomes undefined), else a fresh tensor
// of its shape and dtype: for kernels that may work in place. Uninitialised in either case, as far as the
// caller may assume.
Tensor reusable(Tensor& tensor);

}  // namespace lathe::autograd
