#include "nn/experts.h"

#include "autograd/ops/experts.h"
#include "nn/gated.h"

namespace lathe::nn {

using autograd::Variable;

Variable Experts::operator()(const Variable& x, const autograd::SequenceLayout& layout) const {
  const auto kind = normalised ? kernels::ExpertWeights::normalised : kernels::ExpertWeights::probabilities;
  const Variable logits = router(x, {layout, {}, {}});
  const autograd::ExpertChoice choice = autograd::choose_experts(logits, per_token, kind);
  const auto count = static_cast<int64_t>(experts.size());
  const autograd::ExpertRows rows = autograd::expert_rows(choice.chosen, count, x.value().device());
  std::vector<Variable> parts = autograd::send_to_experts(x, rows);
  auto part = parts.begin();
  for (int64_t e = 0; e < count; ++e) {
    if (!rows.has_slots(e)) continue;
    const Expert& expert = experts[static_cast<size_t>(e)];
    const BatchRows batch{rows.layout_of(e, layout), {}, {}};
    const Variable up = expert.up_proj(*part, batch), gate = expert.gate_proj(*part, batch);
    *part++ = expert.down_proj(gated(activation, gate, up), batch);
  }
  return autograd::combine_experts(parts, choice.weights, rows);
}

}  // namespace lathe::nn
