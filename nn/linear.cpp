#include "nn/linear.h"

#include "autograd/recording.h"

namespace lathe::nn {

autograd::Variable Linear::operator()(const autograd::Variable& x, const BatchRows& rows,
                                      const autograd::Variable& residual) const {
  const bool packs =
      rows.adapters.size() > 1 && !autograd::grad_enabled() && x.value().device().kind == DeviceKind::cpu;
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
    if (packs) {
      const PackedLora::Pair pair = layer.packed->of(layer.a.leaf.value(), layer.b.leaf.value());
      term.packed_a = pair.a, term.packed_b = pair.b;
    }
    terms.lora.push_back(std::move(term));
  }
  return autograd::linear(x, weight, rows.layout, terms);
}

}  // namespace lathe::nn
