#include "nn/linear.h"

#include "kernels/copy/copy.h"
#include "nn/linear_each.h"

namespace lathe::nn {

JoinedFactors::Factors JoinedFactors::of(const Parameter& a, const Parameter& b) const {
  const std::lock_guard lock(mutex_);
  const Tensor &rows = a.leaf.value(), &columns = b.leaf.value();
  const std::array<uint64_t, 4> versions{rows.version(), a.start.version(), columns.version(), b.start.version()};
  if (factors_.a.defined() && versions == versions_) return factors_;
  const auto join = [](Tensor& both, const Tensor& first, const Tensor& second, int dimension) {
    const int64_t half = first.dim(dimension);
    const Shape shape = dimension == 0 ? Shape{2 * half, first.dim(1)} : Shape{first.dim(0), 2 * half};
    // Made once: what a graph has captured must not move.
    if (!both.defined()) both = Tensor::empty(shape, first.dtype(), first.device(), MemoryTag::adapters);
    kernels::copy(both.slice(dimension, 0, half), first);
    kernels::copy(both.slice(dimension, half, 2 * half), second);
    both.bump_version();
  };
  join(factors_.a, rows, a.start, 0);
  join(factors_.b, columns, b.start, 1);
  versions_ = versions;
  return factors_;
}

PackedLora::Pair LoraLayer::packed_factors() const {
  if (!joined) return packed->of(a.leaf.value(), b.leaf.value());
  const JoinedFactors::Factors factors = joined->of(a, b);
  return packed->of(factors.a, factors.b);
}

kernels::DropoutParams LoraLayer::dropout_of(const AdapterMode& mode) const {
  if (!mode.training || dropout == 0) return {};
  return {dropout, mode.dropout_seed, mode.dropout_step, dropout_stream, mode.stored_dropout_step};
}

autograd::Variable Linear::operator()(const autograd::Variable& x, const BatchRows& rows,
                                      const autograd::Variable& residual) const {
  if (std::optional<std::vector<autograd::UnrecordedLora>> few = unrecorded_lora(*this, rows)) {
    const autograd::UnrecordedLinear alone{weight, bias.value(), residual.value(), *std::move(few)};
    return autograd::linear_each(x, {&alone, 1})[0];
  }
  autograd::LinearTerms terms{.bias = bias, .residual = residual, .lora = {}};
  for (const AdapterRun& run : rows.adapters) {
    const auto found = lora.find(run.adapter);
    if (found == lora.end()) continue;  // this adapter targets other linears
    const LoraLayer& layer = found->second;
    autograd::LoraTerm term{.a = layer.a.leaf, .b = layer.b.leaf, .scale = layer.scaling, .sequences = run.sequences};
    term.dropout = layer.dropout_of(rows.mode);
    if (layer.joined) {
      const JoinedFactors::Factors factors = layer.joined->of(layer.a, layer.b);
      term.joined_a = factors.a;
      term.joined_b = factors.b;
    }
    if (layer.magnitude) {
      term.magnitude = layer.magnitude->leaf;
      term.inverse_norm = layer.norms->inverse(layer.a.leaf.value(), layer.b.leaf.value(), layer.scaling);
    }
    terms.lora.push_back(std::move(term));
  }
  return autograd::linear(x, weight, rows.layout, terms);
}

}  // namespace lathe::nn
