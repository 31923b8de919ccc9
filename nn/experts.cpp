#include "nn/experts.h"

#include <algorithm>

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/keep_rows.h"
#include "autograd/ops/linear_each.h"
#include "autograd/recording.h"
#include "nn/gated.h"

namespace lathe::nn {

using autograd::Variable;

namespace {

// The rows of one expert, and what the batch's adapters add to its products. x·Aᵀ is an operation by itself, for gate
// and up alike: their A has one gradient, whose order a batch does not change.
class ExpertBatch {
 public:
  ExpertBatch(const Expert& expert, const BatchRows& batch, const autograd::ExpertRows& rows, int64_t number)
      : layout_(rows.layout_of(number, batch.layout)) {
    const auto begin = static_cast<size_t>(rows.bounds[static_cast<size_t>(number)]);
    const auto end = static_cast<size_t>(rows.bounds[static_cast<size_t>(number) + 1]);
    const auto tokens = rows.tokens.span<int32_t>().subspan(begin, end - begin);
    for (const AdapterRun& run : batch.adapters) {
      const auto found = expert.lora.find(run.adapter);
      if (found == expert.lora.end()) continue;
      Run own{&found->second, 0, std::ssize(tokens)};
      if (run.sequences) {
        const auto row_of = [&](int64_t token) {
          return std::lower_bound(tokens.begin(), tokens.end(), token) - tokens.begin();
        };
        own.begin = row_of(run.sequences->first_token);
        own.end = row_of(run.sequences->end_token());
      }
      if (own.begin < own.end) runs_.push_back(own);
    }
  }

  Variable multiply(const Linear& linear, const Variable& x) const { return linear(x, {layout_, {}, {}}); }

  // Of each run that has this linear adapted: s·x·Aᵀ, 0 in other runs' rows.
  std::vector<Variable> through_a(std::optional<LoraLayer> ExpertLora::*linear, const Variable& x) const {
    std::vector<Variable> all;
    for (const Run& run : runs_) {
      const std::optional<LoraLayer>& lora = run.lora->*linear;
      if (!lora) continue;
      const Variable t = autograd::scale(autograd::linear(x, lora->a.leaf, layout_), lora->scaling);
      const bool whole = run.begin == 0 && run.end == x.dim(0);
      all.push_back(whole ? t : autograd::keep_rows(t, run.begin, run.end));
    }
    return all;
  }
  // out + t·Bᵀ.
  Variable add(std::optional<LoraLayer> ExpertLora::*linear, Variable out, const std::vector<Variable>& t) const {
    auto next = t.begin();
    for (const Run& run : runs_)
      if (const std::optional<LoraLayer>& lora = run.lora->*linear)
        out = autograd::linear(*next++, lora->b.leaf, layout_, {.bias = {}, .residual = out, .lora = {}});
    return out;
  }

 private:
  struct Run {
    const ExpertLora* lora;
    int64_t begin, end;  // rows of the expert's
  };
  autograd::SequenceLayout layout_;
  std::vector<Run> runs_;
};

bool uses_adapters(const std::vector<Expert>& experts, const BatchRows& batch) {
  return std::ranges::any_of(batch.adapters, [&](const AdapterRun& run) {
    return std::ranges::any_of(experts, [&](const Expert& expert) { return expert.lora.contains(run.adapter); });
  });
}

// More tokens keep a parallel region busy by one expert's rows, whose products need less memory one after another.
constexpr int64_t grouped_tokens_most = 64;

// All experts' rows at once where nothing is recorded and no adapter changes them: a layer of a decode step is some
// seven parallel regions, and four for each expert of a token besides when they run one after the other.
Variable multiply_grouped(const Experts& mixture, const Variable& slots, const autograd::ExpertRows& rows) {
  std::vector<autograd::RowsLinears> gate_up, down;
  for (size_t e = 0; e < mixture.experts.size(); ++e) {
    if (!rows.has_slots(static_cast<int64_t>(e))) continue;
    const auto unrecorded = [](const Linear& linear) {
      return autograd::UnrecordedLinear{linear.weight, linear.bias.value()};
    };
    const Expert& expert = mixture.experts[e];
    gate_up.push_back({rows.bounds[e], rows.bounds[e + 1], {unrecorded(expert.gate_proj), unrecorded(expert.up_proj)}});
    down.push_back({rows.bounds[e], rows.bounds[e + 1], {unrecorded(expert.down_proj)}});
  }
  const std::vector<Variable> each = autograd::linear_each_of_rows(slots, gate_up);
  return autograd::linear_each_of_rows(gated(mixture.activation, each[0], each[1]), down)[0];
}

kernels::GateKind gate_kind(Activation activation) {
  switch (activation) {
    case Activation::silu: return kernels::GateKind::silu;
    case Activation::gelu_tanh: return kernels::GateKind::gelu_tanh;
    case Activation::clamped_silu: break;
  }
  return kernels::GateKind::clamped_silu;
}

}  // namespace

void Experts::make_tables(DType dtype) {
  const auto table = [&](Linear Expert::*which) {
    std::vector<kernels::Weight> weights;
    std::vector<Tensor> biases;
    for (const Expert& expert : experts) {
      const Linear& linear = expert.*which;
      weights.push_back(linear.weight.value());
      if (linear.bias.defined()) biases.push_back(linear.bias.value());
    }
    return kernels::WeightTable::of(std::move(weights), std::move(biases), dtype);
  };
  autograd::ExpertTables all{table(&Expert::gate_proj), table(&Expert::up_proj), table(&Expert::down_proj)};
  tables = all.gate.goes_with(all.up) && all.down.defined() ? std::move(all) : autograd::ExpertTables{};
}

bool Experts::trains() const {
  const auto is_leaf = [](const Linear& linear) {
    return linear.weight.dense().requires_grad() || linear.bias.requires_grad();
  };
  return std::ranges::any_of(experts, [&](const Expert& expert) {
    return is_leaf(expert.gate_proj) || is_leaf(expert.up_proj) || is_leaf(expert.down_proj);
  });
}

kernels::ExpertRule Experts::rule() const {
  using kernels::ExpertWeights;
  if (!sigmoids) return normalised ? ExpertWeights::normalised : ExpertWeights::probabilities;
  return {normalised ? ExpertWeights::normalised_sigmoids : ExpertWeights::sigmoids, choice_bias, scale};
}

Variable Experts::operator()(const Variable& x, const BatchRows& batch, const Variable& residual) const {
  const Variable logits = router(x, {batch.layout, {}, {}});
  const bool recording = autograd::grad_enabled(), adapted = uses_adapters(experts, batch);
  const bool unrecorded = !recording && !adapted;
  if (stays_on_device() && !adapted && !(recording && trains()) && x.dim(0) > 0)
    return autograd::grouped_experts(x, logits, per_token, rule(), tables, gate_kind(activation), residual);
  const autograd::ExpertChoice choice = autograd::choose_experts(logits, per_token, rule());
  const auto count = static_cast<int64_t>(experts.size());
  const autograd::ExpertRows rows = autograd::expert_rows(choice.chosen, count, x.value().device());
  const Variable slots = autograd::send_to_experts(x, rows);
  if (unrecorded && x.dim(0) > 0 && x.dim(0) <= grouped_tokens_most)
    return autograd::combine_experts(multiply_grouped(*this, slots, rows), choice.weights, rows, residual);
  std::vector<Variable> parts = autograd::split_slots(slots, rows);
  auto part = parts.begin();
  for (int64_t e = 0; e < count; ++e) {
    if (!rows.has_slots(e)) continue;
    const Expert& expert = experts[static_cast<size_t>(e)];
    const ExpertBatch own(expert, batch, rows, e);
    const std::vector<Variable> t = own.through_a(&ExpertLora::gate, *part);
    const Variable up = own.add(&ExpertLora::up, own.multiply(expert.up_proj, *part), t);
    const Variable gate = own.add(&ExpertLora::gate, own.multiply(expert.gate_proj, *part), t);
    const Variable product = gated(activation, gate, up);
    *part++ =
        own.add(&ExpertLora::down, own.multiply(expert.down_proj, product), own.through_a(&ExpertLora::down, product));
  }
  return autograd::combine_experts(autograd::join_slots(parts, rows), choice.weights, rows, residual);
}

}  // namespace lathe::nn
