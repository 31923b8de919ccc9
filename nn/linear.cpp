#include "nn/linear.h"

namespace lathe::nn {

autograd::Variable Linear::operator()(const autograd::Variable& x, const autograd::SequenceLayout& layout,
                                      const AdapterMode& mode, const autograd::Variable& residual) const {
  autograd::LinearTerms terms;
  terms.residual = residual;
  if (lora && mode.enabled) {
    autograd::LoraTerm term{lora->a.leaf, lora->b.leaf, lora->scaling, {}, {}};
    if (mode.training && lora->dropout > 0)
      term.dropout = {lora->dropout, mode.dropout_seed, mode.dropout_step, lora->dropout_stream};
    terms.lora.push_back(std::move(term));
  }
  return autograd::linear(x, weight, layout, terms);
}

}  // namespace lathe::nn
