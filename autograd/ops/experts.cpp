#include "autograd/ops/experts.h"

#include <algorithm>
#include <utility>

#include "autograd/operation.h"
#include "kernels/copy/copy.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/grouped.h"

namespace lathe::autograd {
namespace {

// visitor(part, begin, end): the slots of the experts that have some, numbered in order.
template <class Visitor>
void for_each_part(const ExpertRows& rows, const Visitor& visitor) {
  int part = 0;
  for (size_t expert = 0; expert + 1 < rows.bounds.size(); ++expert)
    if (rows.has_slots(static_cast<int64_t>(expert))) visitor(part++, rows.bounds[expert], rows.bounds[expert + 1]);
}

struct ChooseExperts final : Operation {
  kernels::ExpertRule rule;
  int64_t per_token;
  Tensor* chosen_out;
  Tensor chosen;
  ChooseExperts(int64_t k, kernels::ExpertRule r, Tensor* out) : rule(std::move(r)), per_token(k), chosen_out(out) {}
  std::string_view name() const override { return "choose_experts"; }

  void forward(Forward& f) {
    const Tensor& logits = f.input(0);
    const Shape shape{logits.dim(0), per_token};
    const DType wide = logits.dtype() == DType::f64 ? DType::f64 : DType::f32;
    const Tensor weights = Tensor::empty(shape, wide, logits.device());
    chosen = Tensor::empty(shape, DType::i32, logits.device());
    kernels::choose_experts(weights, chosen, logits, rule);
    *chosen_out = chosen;
    f.save_input("logits", 0);
    f.save("weights", weights);
    f.output(weights);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& logits = saved["logits"];
    const Tensor grad_logits = empty_like(logits);
    kernels::choose_experts_backward(grad_logits, grad_outputs[0], logits, saved["weights"], chosen, rule);
    grads.add(0, grad_logits);
  }
};

struct SendToExperts final : Operation {
  ExpertRows rows;
  explicit SendToExperts(ExpertRows r) : rows(std::move(r)) {}
  std::string_view name() const override { return "send_to_experts"; }

  void forward(Forward& f) {
    const Tensor& x = f.input(0);
    const Tensor out = Tensor::empty({rows.tokens.numel(), x.dim(1)}, x.dtype(), x.device());
    kernels::embedding_forward(out, x, rows.tokens);
    f.output(out);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& grad_rows = grad_outputs[0];
    const Tensor grad_x = Tensor::empty({rows.slots.dim(0), grad_rows.dim(1)}, grad_rows.dtype(), grad_rows.device());
    kernels::combine_experts(grad_x, grad_rows, rows.slots, {});
    grads.add(0, grad_x);
  }
};

struct SplitSlots final : Operation {
  ExpertRows rows;
  explicit SplitSlots(ExpertRows r) : rows(std::move(r)) {}
  std::string_view name() const override { return "split_slots"; }

  void forward(Forward& f) {
    for_each_part(rows, [&](int, int64_t begin, int64_t end) { f.output(f.input(0).slice(0, begin, end)); });
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& any = *std::find_if(grad_outputs.begin(), grad_outputs.end(),
                                      [](const Tensor& gradient) { return gradient.defined(); });
    const Tensor grad_slots = Tensor::empty({rows.tokens.numel(), any.dim(1)}, any.dtype(), any.device());
    for_each_part(rows, [&](int part, int64_t begin, int64_t end) {
      const Tensor& gradient = grad_outputs[static_cast<size_t>(part)];
      const Tensor to = grad_slots.slice(0, begin, end);
      gradient.defined() ? kernels::copy(to, gradient) : kernels::fill(to, 0.0);
    });
    grads.add(0, grad_slots);
  }
};

struct JoinSlots final : Operation {
  ExpertRows rows;
  explicit JoinSlots(ExpertRows r) : rows(std::move(r)) {}
  std::string_view name() const override { return "join_slots"; }

  void forward(Forward& f) {
    const Tensor& first = f.input(0);
    const Tensor joined = Tensor::empty({rows.tokens.numel(), first.dim(1)}, first.dtype(), first.device());
    for_each_part(
        rows, [&](int part, int64_t begin, int64_t end) { kernels::copy(joined.slice(0, begin, end), f.input(part)); });
    f.output(joined);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    for_each_part(rows, [&](int part, int64_t begin, int64_t end) {
      if (grads.needed(part)) grads.add(part, grad_outputs[0].slice(0, begin, end));
    });
  }
};

struct CombineExperts final : Operation {
  ExpertRows rows;
  explicit CombineExperts(ExpertRows r) : rows(std::move(r)) {}
  std::string_view name() const override { return "combine_experts"; }

  void forward(Forward& f) {
    const Tensor& slots = f.input(0);
    const Tensor out = Tensor::empty({rows.slots.dim(0), slots.dim(1)}, slots.dtype(), slots.device());
    kernels::combine_experts(out, slots, rows.slots, f.input(1), f.input(2));
    f.save_input("slots", 0);
    f.save_input("weights", 1);
    f.output(out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor &slots = saved["slots"], &weights = saved["weights"];
    const Tensor grad_slots = grads.needed(0) ? empty_like(slots) : Tensor();
    const Tensor grad_weights = grads.needed(1) ? empty_like(weights) : Tensor();
    kernels::combine_experts_backward(grad_slots, grad_weights, grad_outputs[0], slots, rows.slots, weights);
    if (grads.needed(0)) grads.add(0, grad_slots);
    if (grads.needed(1)) grads.add(1, grad_weights);
    grads.add(2, grad_outputs[0]);
  }
};

void gated_backward(kernels::GateKind kind, const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out,
                    const Tensor& gate, const Tensor& up) {
  switch (kind) {
    case kernels::GateKind::silu: return kernels::swiglu_backward(grad_gate, grad_up, grad_out, gate, up);
    case kernels::GateKind::gelu_tanh: return kernels::geglu_backward(grad_gate, grad_up, grad_out, gate, up);
    case kernels::GateKind::clamped_silu: break;
  }
  kernels::clamped_swiglu_backward(grad_gate, grad_up, grad_out, gate, up);
}

struct GroupedExperts final : Operation {
  int64_t per_token;
  kernels::ExpertRule rule;
  const ExpertTables& tables;
  kernels::GateKind activation;
  kernels::ExpertGroups groups = {};
  GroupedExperts(int64_t k, kernels::ExpertRule r, const ExpertTables& t, kernels::GateKind a)
      : per_token(k), rule(std::move(r)), tables(t), activation(a) {}
  std::string_view name() const override { return "grouped_experts"; }

  kernels::WeightGroups weight_groups() const {
    return {.numbers = groups.experts, .bounds = groups.bounds, .rows = groups.rows, .begins = groups.begins};
  }

  // Which groups suit all products, and those of their gradients where these are recorded.
  int64_t group_rows(int64_t slots, bool recording) const {
    const auto rows = recording ? kernels::suitable_recorded_group_rows : kernels::suitable_group_rows;
    return std::min(rows(tables.gate, slots), rows(tables.down, slots));
  }

  void forward(Forward& f) {
    static_assert(kernels::few_grouped_tokens == kernels::few_rows_most, "groups of few tokens are those of few rows");
    const Tensor &x = f.input(0), &logits = f.input(1);
    const auto room = [&](const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, x.device()); };
    const Shape choices{x.dim(0), per_token};
    const int64_t slots = choices.numel();
    const Tensor weights = room(choices, DType::f32);
    groups =
        kernels::ExpertGroups::empty(x.dim(0), logits.dim(1), per_token, x.device(), group_rows(slots, f.recording()));
    if (f.recording()) groups.chosen = room(choices, DType::i32);
    kernels::choose_and_group_experts(weights, groups, logits, rule);
    const Tensor inner = room({slots, tables.gate.rows()}, x.dtype());
    kernels::GatedProducts kept;
    if (f.recording()) kept = {empty_like(inner), empty_like(inner)};
    kernels::grouped_gated_linear(inner, x, groups.tokens, tables.gate, tables.up, weight_groups(), activation, kept);
    const Tensor rows = room({slots, tables.down.rows()}, x.dtype());
    kernels::grouped_linear(rows, inner, tables.down, weight_groups());
    const Tensor out = room(x.shape(), x.dtype());
    kernels::combine_experts(out, rows, groups.slots, weights, f.input(2));
    if (f.recording()) {
      f.save_input("logits", 1);
      f.save("weights", weights);
      f.save("gate", kept.gate);
      f.save("up", kept.up);
      f.save("rows", rows);
    }
    f.output(out);
  }

  // In the order and with the bits of the operations above: each gradient takes the place of what it is the last to
  // need.
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor weights = saved["weights"], rows = saved.take("rows");
    const Tensor grad_rows = grads.needed(0) ? in_place_or_fresh(rows) : Tensor();
    const Tensor grad_weights = grads.needed(1) ? empty_like(weights) : Tensor();
    kernels::combine_experts_backward(grad_rows, grad_weights, grad_outputs[0], rows, groups.slots, weights);
    grads.add(2, grad_outputs[0]);
    if (grads.needed(0)) grads.add(0, input_gradient(saved, grad_rows));
    if (!grads.needed(1)) return;
    const Tensor& logits = saved["logits"];
    const Tensor grad_logits = empty_like(logits);
    kernels::choose_experts_backward(grad_logits, grad_weights, logits, weights, groups.chosen, rule);
    grads.add(1, grad_logits);
  }

  // Of down's rows, which are worked in, to those of x.
  Tensor input_gradient(Saved& saved, const Tensor& grad_rows) const {
    const Tensor gate = saved.take("gate"), up = saved.take("up");
    const Tensor grad_inner = empty_like(gate);
    const kernels::GroupedGradientTerm through_down[] = {{grad_rows, &tables.down}};
    kernels::grouped_input_gradient(grad_inner, through_down, weight_groups());
    const Tensor grad_gate = in_place_or_fresh(gate), grad_up = in_place_or_fresh(up);
    gated_backward(activation, grad_gate, grad_up, grad_inner, gate, up);
    const kernels::GroupedGradientTerm both[] = {{grad_gate, &tables.gate}, {grad_up, &tables.up}};
    kernels::grouped_input_gradient(grad_rows, both, weight_groups());
    const Tensor grad_x = Tensor::empty({groups.slots.dim(0), grad_rows.dim(1)}, grad_rows.dtype(), grad_rows.device());
    kernels::combine_experts(grad_x, grad_rows, groups.slots, {});
    return grad_x;
  }
};

}  // namespace

ExpertChoice choose_experts(const Variable& logits, int64_t per_token, const kernels::ExpertRule& rule) {
  Tensor chosen;
  Variable weights = apply(ChooseExperts(per_token, rule, &chosen), {logits});
  return {std::move(weights), kernels::moved(chosen, {})};
}

ExpertRows expert_rows(const Tensor& chosen, int64_t experts, Device device) {
  const auto choice = chosen.span<int32_t>();
  const int64_t per_token = chosen.dim(1);
  ExpertRows rows;
  rows.bounds.assign(static_cast<size_t>(experts) + 1, 0);
  for (const int32_t expert : choice) ++rows.bounds[static_cast<size_t>(expert) + 1];
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) rows.bounds[e + 1] += rows.bounds[e];
  std::vector<int64_t> next(rows.bounds.begin(), rows.bounds.end() - 1);
  rows.tokens = Tensor::empty({chosen.numel()}, DType::i32);
  const Tensor slots = Tensor::empty(chosen.shape(), DType::i32);
  for (int64_t i = 0; i < chosen.numel(); ++i) {
    const int64_t slot = next[static_cast<size_t>(choice[static_cast<size_t>(i)])]++;
    slots.data<int32_t>()[i] = static_cast<int32_t>(slot);
    rows.tokens.data<int32_t>()[slot] = static_cast<int32_t>(i / per_token);
  }
  rows.slots = kernels::moved(slots, device);
  return rows;
}

SequenceLayout ExpertRows::layout_of(int64_t expert, const SequenceLayout& tokens_layout) const {
  const auto begin = bounds[static_cast<size_t>(expert)], end = bounds[static_cast<size_t>(expert) + 1];
  const auto sequences = tokens_layout.cu_seqlens.span<int32_t>();
  const auto whose = tokens.span<int32_t>().subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  SequenceLayout layout = tokens_layout;
  layout.cu_seqlens = Tensor::empty(tokens_layout.cu_seqlens.shape(), DType::i32);
  layout.positions = Tensor::empty({end - begin}, DType::i32);
  size_t row = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    while (row < whose.size() && whose[row] < sequences[s]) ++row;
    layout.cu_seqlens.data<int32_t>()[s] = static_cast<int32_t>(row);
  }
  for (size_t i = 0; i < whose.size(); ++i)
    layout.positions.data<int32_t>()[i] = tokens_layout.positions.span<int32_t>()[static_cast<size_t>(whose[i])];
  return layout;
}

Variable send_to_experts(const Variable& x, const ExpertRows& rows) { return apply(SendToExperts(rows), {x}); }

std::vector<Variable> split_slots(const Variable& slots, const ExpertRows& rows) {
  return apply(SplitSlots(rows), {slots}).all();
}

Variable join_slots(const std::vector<Variable>& parts, const ExpertRows& rows) {
  return apply(JoinSlots(rows), std::span<const Variable>(parts));
}

Variable grouped_experts(const Variable& x, const Variable& logits, int64_t per_token, const kernels::ExpertRule& rule,
                         const ExpertTables& tables, kernels::GateKind activation, const Variable& residual) {
  return apply(GroupedExperts(per_token, rule, tables, activation), {x, logits, residual});
}

Variable combine_experts(const Variable& slots, const Variable& weights, const ExpertRows& rows,
                         const Variable& residual) {
  return apply(CombineExperts(rows), {slots, weights, residual});
}

}  // namespace lathe::autograd
