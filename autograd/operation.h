// The public hook: how an operation joins the tape. Ours (autograd/ops/) and a user's are written alike:
//
//   struct Square final : Operation {  // out = x²
//     std::string_view name() const override { return "square"; }
//     void forward(Forward& f) {
//       Tensor out = Tensor::empty(f.input(0).shape(), f.input(0).dtype());
//       …compute out…
//       f.save_input("x", 0);
//       f.output(out);
//     }
//     void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
//       grads.add(0, …2 · saved["x"] · grad_outputs[0]…);
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
#include <utility>
#include <vector>

#include "autograd/operation_times.h"
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
  // undefined where nothing flowed to that output (never all of them). Its memory may be worked in when
  // exclusive() says so.
  virtual void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) = 0;
  // An operation whose first output is cheap to compute again from what it saved offers to do so: then
  // operations that save that output as their input keep nothing, and the walk calls recompute() once, before
  // it passes this one.
  virtual bool can_recompute() const { return false; }
  virtual Tensor recompute(Saved&) { return {}; }
};

struct SavedTensor {
  std::string_view name;
  Tensor tensor;                   // undefined where the producer recomputes it
  uint64_t version = 0;            // of the storage, when it was saved
  std::shared_ptr<Node> producer;  // recomputes it
};

// What forward() sees. Inputs are numbered as in apply(); an optional input that is not given is undefined.
class Forward {
 public:
  explicit Forward(std::span<const Variable> inputs);
  const Tensor& input(int i) const { return inputs_[static_cast<size_t>(i)].value(); }
  // Whether this input's gradient will be asked for. All false when nothing is recorded.
  bool needs(int i) const { return recording_ && inputs_[static_cast<size_t>(i)].requires_grad(); }
  // False: nothing will be saved, so compute nothing for a backward.
  bool recording() const { return recording_; }

  // The explicit saved list, read back by name (a literal) in vjp. A tensor that is changed in place before
  // the walk reaches it is an error that names the operation and the tensor. save_input keeps nothing where
  // the input's producer recomputes it.
  void save(std::string_view name, const Tensor& tensor);
  void save_input(std::string_view name, int i);
  void output(Tensor value) { outputs_.push_back(std::move(value)); }

  // Records although no input needs a gradient: leaves are used inside (checkpoint).
  void require_recording() { recording_ = true; }

 private:
  friend class Outputs;
  std::span<const Variable> inputs_;
  std::vector<SavedTensor> saved_;
  std::vector<Tensor> outputs_;
  bool recording_ = false;
};

// The saved list in vjp and recompute.
class Saved {
 public:
  explicit Saved(Node& node) : node_(node) {}
  const Tensor& operator[](std::string_view name) { return at(name, 0); }
  // The index-th that was saved under this name.
  const Tensor& at(std::string_view name, int index);
  bool has(std::string_view name) const;
  // Removes it from the list, so that its memory may become exclusive().
  Tensor take(std::string_view name);

 private:
  SavedTensor& find(std::string_view name, int index);
  Node& node_;
};

// Where vjp puts the gradients of the inputs. Contributions to one input are summed in the order of the walk.
class InputGradients {
 public:
  InputGradients(Node& node, Walk& walk) : node_(node), walk_(walk) {}
  // False for constants, frozen weights and missing inputs: do no work for those.
  bool needed(int i) const;

  // Three ways to deliver, one for each needed input.
  // 1. A tensor of the input's shape. It may be grad_outputs' own: memory is shared until somebody must
  // write.
  void add(int i, Tensor gradient);
  // 2. A contiguous buffer in the input's dtype, to be written whole (or, with accumulate, added to) before
  // vjp
  //    delivers anything else: saves a pass where a kernel can add to what is there.
  struct Target {
    Tensor tensor;
    bool accumulate;
  };
  Target target(int i);
  // 3. A buffer in f32 (f64 for f64) to be added to, a leaf's own gradient: for kernels that sum over tokens.
  Tensor accumulator(int i);

  // Continues the walk through operations that vjp has just recorded on the inputs' own Variables
  // (checkpoint).
  void continue_through(std::span<const Variable> outputs, std::span<Tensor> grad_outputs);

 private:
  friend class Walk;
  const Edge& edge(int i) const;
  Target buffer(int i, DType dtype);
  void deliver_pending();

  Node& node_;
  Walk& walk_;
  std::vector<std::pair<int, Tensor>> pending_;  // buffers that are not the receiver's own
};

// What apply() returns: converts to its only output, or is indexed.
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
  {
    const OperationTimer timer(operation, Direction::forward);
    operation.forward(forward);
  }
  std::unique_ptr<Operation> recorded;
  if (forward.recording()) recorded = std::make_unique<Op>(std::move(operation));
  return Outputs(forward, std::move(recorded));
}
template <class Op>
Outputs apply(Op operation, std::initializer_list<Variable> inputs) {
  return apply(std::move(operation), std::span<const Variable>(inputs.begin(), inputs.size()));
}

Tensor empty_like(const Tensor& tensor);  // contiguous

// Nobody else sees this tensor's memory: a kernel may write into it.
bool exclusive(const Tensor& tensor);
// The tensor's own memory when it is exclusive and contiguous, else fresh memory for its shape and dtype:
// where the result of a kernel goes that may work in place.
Tensor in_place_or_fresh(const Tensor& tensor);

}  // namespace lathe::autograd
