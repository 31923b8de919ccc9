#include "nn/linear.h"

namespace lathe::nn {

autograd::Variable Linear::operator()(const autograd::Variable& x, const BatchRows& rows,
                                      const autograd::Variable& residual) const {
  autograd::LinearTerms terms{.bias = bias, .residual = residual, .lora = {}};
  for (const AdapterRun& run : rows.adapters) {
    const auto found = lora.find(run.adapter);
    if (found == lora.end()) continue;  // this adapter targets other linears
    const LoraLayer& layer = found->second;
    autograd::LoraTerm term{.a = layer.a.leaf, .b = layer.b.leaf, .scale = layer.scaling, .sequences = run.sequences};
    if (rows.mode.training && layer.dropout > 0)
      term.dropout = {layer.dropout, rows.mode.dropout_seed, rows.mode.dropout_step, layer.dropout_stream};
    if (layer.magnitude) {
      term.magnitude = layer.magnitude->leaf;
      term.inverse_norm = layer.norms->inverse(layer.a.leaf.value(), layer.b.leaf.value(), layer.scaling);
    }
    terms.lora.push_back(std::move(term));
  }
  return autograd::linear(x, weight, rows.layout, terms);
}

}  // namespace lathe::nn
