#include "nn/linear_each.h"

#include <algorithm>

#include "autograd/recording.h"
#include "nn/joined_lora.h"

namespace lathe::nn {
namespace {

bool is_plain(const LoraLayer& layer, const AdapterRun& run, const AdapterMode& mode) {
  return run.sequences && !layer.magnitude && !(mode.training && layer.dropout > 0) &&
         kernels::packs_narrow(layer.a.leaf.value());
}

}  // namespace

bool is_alone(const Linear& linear, const BatchRows& rows) {
  return !autograd::grad_enabled() &&
         std::none_of(rows.adapters.begin(), rows.adapters.end(),
                      [&](const AdapterRun& run) { return linear.lora.contains(run.adapter); });
}

std::optional<std::vector<autograd::UnrecordedLora>> unrecorded_lora(const Linear& linear, const BatchRows& rows) {
  if (autograd::grad_enabled()) return std::nullopt;
  std::vector<autograd::UnrecordedLora> terms;
  for (const AdapterRun& run : rows.adapters) {
    const auto found = linear.lora.find(run.adapter);
    if (found == linear.lora.end()) continue;  // this adapter targets other linears
    const LoraLayer& layer = found->second;
    if (!is_plain(layer, run, rows.mode)) return std::nullopt;
    if (terms.empty()) terms.reserve(rows.adapters.size());
    const PackedLora::Pair pair = layer.packed_factors();
    terms.push_back({run.sequences->first_token, run.sequences->end_token(), pair.a, pair.b, layer.scaling});
  }
  return terms;
}

std::vector<autograd::Variable> multiply_each(const std::vector<Linear>& linears, const autograd::Variable& x,
                                              const BatchRows& rows) {
  std::vector<autograd::UnrecordedLinear> unrecorded;
  unrecorded.reserve(linears.size());
  for (const Linear& linear : linears) {
    std::optional<std::vector<autograd::UnrecordedLora>> lora = unrecorded_lora(linear, rows);
    if (!lora) break;
    unrecorded.push_back({linear.weight, linear.bias.value(), {}, *std::move(lora)});
  }
  if (unrecorded.size() == linears.size()) return autograd::linear_each(x, unrecorded);
  std::vector<const Linear*> in_order;
  for (const Linear& linear : linears) in_order.push_back(&linear);
  return multiply_in_turn(in_order, x, rows);
}

std::vector<autograd::Variable> multiply_in_turn(std::span<const Linear* const> linears, const autograd::Variable& x,
                                                 const BatchRows& rows) {
  if (std::optional<std::vector<autograd::Variable>> joined = multiply_joined(linears, x, rows))
    return *std::move(joined);
  std::vector<autograd::Variable> each;
  each.reserve(linears.size());
  for (const Linear* linear : linears) each.push_back((*linear)(x, rows));
  return each;
}

}  // namespace lathe::nn
