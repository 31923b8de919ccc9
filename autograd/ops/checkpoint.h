// Activation recompute (Chen et al. 2016): the intermediate tensors of `body` are not kept for the backward;
// the walk runs `body` again when it gets there. Gradients are the same bits as without.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "autograd/variable.h"

namespace lathe::autograd {

using CheckpointBody = std::function<std::vector<Variable>(std::span<const Variable>)>;

// body must be a function of its inputs and of leaves it captures (those get their gradients too): called
// twice it gives the same numbers. Random numbers keyed by position (dropout) do; state that changes between
// does not, and the captured objects must outlive the backward. May be nested.
std::vector<Variable> checkpoint(CheckpointBody body, std::vector<Variable> inputs);

}  // namespace lathe::autograd
