// What the cases of recurrences over a sequence's tokens share: a backward of what a forward has, and steps over a pool
// of states.
#pragma once

#include <string>

#include "tests/kernels/paged_attention_cases.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing::recurrence_cases {

using paged_attention_cases::Step;

// A case of the forward becomes one of the backward, but for what it runs: grad_out goes in, and of every floating
// input the gradient comes out, those of the weights in f32 and added to what is there.
inline void make_backward(Case& made) {
  Operand grad_out = made.outputs[0];
  grad_out.name = "grad_out";
  grad_out.values = normal();
  made.outputs.clear();
  GradientCheck check{.forward = made.run, .results = {{.name = "out", .cotangent = "grad_out"}}};
  for (const Operand& input : made.inputs) {
    if (!is_floating(input.dtype)) continue;
    Operand gradient{.name = "grad_" + input.name, .shape = input.shape, .dtype = input.dtype, .factor = 3};
    gradient.padding = input.padding;
    if (input.batch == Batch::shared) {
      gradient.dtype = DType::f32;
      gradient.batch = Batch::shared;
      gradient.values = normal();
      gradient.accumulates = true;
    }
    check.gradients.push_back({.of = input.name, .in = gradient.name});
    made.outputs.push_back(gradient);
  }
  made.inputs.insert(made.inputs.begin(), grad_out);
  made.gradient = {check};
}

// One slot more than there are sequences, which have them from the last on.
inline int64_t slots_of(const Step& step) { return step.count() + 1; }
inline void add_step_operands(Case& made, const Step& step) {
  for (Operand& operand : step.operands()) made.inputs.push_back(std::move(operand));
  std::vector<double> own;
  for (int64_t s = 0; s < step.count(); ++s) own.push_back(static_cast<double>(slots_of(step) - 1 - s));
  made.inputs.push_back({.name = "state_slots",
                         .shape = {step.count()},
                         .dtype = DType::i32,
                         .values = values(own),
                         .batch = Batch::sequences,
                         .on_cpu = true});
}
// The output "states", of slots_of(step) first: those of no sequence keep what they hold.
inline Operand states_of(const Shape& shape) {
  return {.name = "states", .shape = shape, .values = normal(), .batch = Batch::shared, .accumulates = true};
}
inline kernels::PagedBatch batch_of(const Step& step, const Arguments& a) {
  return {a["cu_seqlens"], a["context_lens"], a["block_table"], {step.pages, step.page_size, a["states"].device()}, {},
          a["state_slots"]};
}

}  // namespace lathe::testing::recurrence_cases
