#include "autograd/ops/checkpoint.h"

#include "autograd/operation.h"
#include "autograd/recording.h"

namespace lathe::autograd {
namespace {

struct Checkpoint final : Operation {
  CheckpointBody body;
  std::vector<Variable> inputs;

  Checkpoint(CheckpointBody b, std::vector<Variable> i) : body(std::move(b)), inputs(std::move(i)) {}
  std::string_view name() const override { return "checkpoint"; }

  void forward(Forward& f) {
    std::vector<Variable> outputs;
    if (recording_state.mode == Recording::on) {
      // The body may use leaves that are no inputs (a layer's weights): whether there are any shows while it
      // runs.
      const RecordingScope observing(Recording::observing);
      outputs = body(inputs);
      if (recording_state.observed) f.require_recording();
    } else {
      outputs = body(inputs);
    }
    for (const Variable& input : inputs) f.save("input", input.value());
    for (const Variable& output : outputs) f.output(output.value());
  }

  // The operations are recorded once more, on the inputs' own edges, and the walk goes on through them: every
  // gradient is summed in the same place and order as without a checkpoint.
  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const RecordingScope recording(Recording::on);
    grads.continue_through(body(inputs), grad_outputs);
  }
};

}  // namespace

std::vector<Variable> checkpoint(CheckpointBody body, std::vector<Variable> inputs) {
  Checkpoint operation(std::move(body), inputs);
  return apply(std::move(operation), std::span<const Variable>(inputs)).all();
}

}  // namespace lathe::autograd
