#include "nn/joined_lora.h"

#include <algorithm>

#include "autograd/ops/joined_linears.h"
#include "kernels/copy/copy.h"

namespace lathe::nn {
namespace {

// With A and B alone: no start beside them, no magnitudes.
bool is_plain(const LoraLayer& layer) { return !layer.joined && !layer.magnitude; }

// t [T, Σ r] is read by columns: each term's begin at a multiple of 16 bytes, and so does each A.
bool lies_evenly(const Tensor& a) {
  return a.dim(0) * size_of(a.dtype()) % 16 == 0 && a.numel() * size_of(a.dtype()) % 64 == 0;
}

bool is_frozen(const autograd::Variable& variable) { return !variable.requires_grad(); }

}  // namespace

void lay_together(std::span<Linear* const> linears, std::string_view adapter) {
  std::vector<LoraLayer*> layers;
  int64_t rows = 0;
  for (Linear* linear : linears) {
    const auto found = linear->lora.find(adapter);
    if (found == linear->lora.end()) continue;
    layers.push_back(&found->second);
    const Tensor& a = found->second.a.leaf.value();
    if (!is_plain(found->second) || !lies_evenly(a)) return;
    rows += a.dim(0);
  }
  if (layers.size() < 2) return;
  const Tensor& first = layers[0]->a.leaf.value();
  const Tensor all = Tensor::empty({rows, first.dim(1)}, first.dtype(), first.device(), MemoryTag::adapters);
  int64_t begin = 0;
  for (LoraLayer* layer : layers) {
    Parameter& a = layer->a;
    const bool is_master = a.master.storage() == a.leaf.value().storage();
    const Tensor place = all.slice(0, begin, begin + a.leaf.dim(0));
    kernels::copy(place, a.leaf.value());
    begin += a.leaf.dim(0);
    a.leaf = autograd::Variable::leaf(place);
    if (is_master) a.master = place;
  }
}

std::optional<std::vector<autograd::Variable>> multiply_joined(std::span<const Linear* const> linears,
                                                               const autograd::Variable& x, const BatchRows& rows) {
  if (rows.adapters.size() != 1 || rows.adapters[0].sequences) return std::nullopt;
  std::vector<autograd::JoinedLinear> joined;
  std::vector<Tensor> factors;
  const LoraLayer* first = nullptr;
  for (const Linear* linear : linears) {
    if (!is_frozen(linear->weight.dense()) || !is_frozen(linear->bias)) return std::nullopt;
    autograd::JoinedLinear& each =
        joined.emplace_back(autograd::JoinedLinear{linear->weight, linear->bias.value(), {}, {}, {}});
    const auto found = linear->lora.find(rows.adapters[0].adapter);
    if (found == linear->lora.end()) continue;
    const LoraLayer& layer = found->second;
    if (first == nullptr) first = &layer;
    if (!is_plain(layer) || layer.scaling != first->scaling || layer.dropout != first->dropout) return std::nullopt;
    each.dropout = layer.dropout_of(rows.mode);
    each.a = layer.a.leaf;
    each.b = layer.b.leaf;
    factors.push_back(layer.a.leaf.value());
  }
  if (factors.size() < 2 || !autograd::rows_together(factors).defined()) return std::nullopt;
  return autograd::joined_linears(x, joined, first->scaling, rows.layout);
}

}  // namespace lathe::nn
