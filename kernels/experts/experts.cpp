#include "kernels/experts/experts.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/experts/bodies.h"
#include "kernels/experts/reference.h"

namespace lathe::kernels {
namespace {

DType wide(const Tensor& x) { return x.dtype() == DType::f64 ? DType::f64 : DType::f32; }

void check_matrix(const char* operation, const char* argument, const Tensor& x) {
  expect(operation, argument, x).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, argument, x);
}

void check_per_token(const char* operation, const char* argument, const Tensor& tensor, int64_t tokens,
                     int64_t per_token, DType dtype, Device device) {
  const Shape shape{tokens, per_token};
  expect(operation, argument, tensor).shape(shape).dtype(dtype).contiguous().device(device);
}

void check_slots(const char* operation, const Tensor& slots, const Tensor& rows, int64_t tokens) {
  expect(operation, "slots", slots).rank(2).dtype(DType::i32).contiguous().device(rows.device());
  check_per_token(operation, "slots", slots, tokens, slots.dim(1), DType::i32, rows.device());
  if (rows.device().kind != DeviceKind::cpu) return;
  for (const int32_t slot : slots.span<int32_t>())
    if (slot < 0 || slot >= rows.dim(0))
      throw ShapeError(std::string(operation) + ": slot " + std::to_string(slot) + " is outside of " + describe(rows));
}

void check_choice(const char* operation, const Tensor& logits, const Tensor& weights, const Tensor& chosen) {
  check_matrix(operation, "logits", logits);
  expect(operation, "weights", weights).rank(2);
  check_per_token(operation, "weights", weights, logits.dim(0), weights.dim(1), wide(logits), logits.device());
  check_per_token(operation, "chosen", chosen, logits.dim(0), weights.dim(1), DType::i32, logits.device());
  if (weights.dim(1) > logits.dim(1) || logits.dim(1) > most_experts)
    throw ShapeError(std::string(operation) + ": " + std::to_string(weights.dim(1)) + " experts for each token of " +
                     std::to_string(logits.dim(1)) + ", of which there may be " + std::to_string(most_experts));
}

void check_rule(const char* operation, const Tensor& logits, const ExpertRule& rule) {
  if (rule.bias.defined()) {
    const Shape shape{logits.dim(1)};
    expect(operation, "bias", rule.bias).shape(shape).dtype(wide(logits)).contiguous().device(logits.device());
  }
  if (!rule.has_sigmoids() && (rule.bias.defined() || rule.scale != 1))
    throw ShapeError(std::string(operation) + ": a bias and a scale go with sigmoids alone");
}

// Of an expert with n slots there are ⌈n / rows⌉ groups.
int64_t most_groups(int64_t tokens, int64_t experts, int64_t per_token, int64_t rows) {
  const int64_t slots = tokens * per_token, chosen = std::min(experts, slots);
  return std::min(chosen * ((tokens + rows - 1) / rows), (slots + chosen * (rows - 1)) / rows);
}

void choose_and_group_many(ChooseExpertsArgs choice, const GroupExpertsArgs& numbers, const ExpertGroups& groups,
                           Device device) {
  const int64_t tokens = choice.row_end, chunk_tokens = group_chunk_choices / choice.per_token;
  const int64_t chunks = (tokens + chunk_tokens - 1) / chunk_tokens;
  const auto room = [&](int64_t rows, int64_t columns) {
    return Tensor::empty({rows, columns}, DType::i32, device, MemoryTag::workspace);
  };
  const Tensor chosen = groups.chosen.defined() ? groups.chosen : room(tokens, choice.per_token);
  const Tensor counts = chunks > 1 ? room(chunks, choice.columns) : Tensor();
  choice.chosen = chosen.data<int32_t>();
  const GroupManyArgs args{.groups = numbers,
                           .begins = groups.begins.defined() ? groups.begins.data<int32_t>() : nullptr,
                           .rows = groups.rows,
                           .chosen = choice.chosen,
                           .counts = counts.defined() ? counts.data<int32_t>() : nullptr,
                           .tokens = tokens,
                           .per_token = choice.per_token,
                           .experts = choice.columns,
                           .chunk_tokens = chunk_tokens,
                           .chunks = chunks};
  with_device(device, [&]<DeviceKind kind>() {
    choose_experts_rows<kind>(choice);
    group_many_experts<kind>(args);
  });
}

}  // namespace

void choose_experts(const Tensor& weights, const Tensor& chosen, const Tensor& logits, const ExpertRule& rule) {
  check_choice("choose_experts", logits, weights, chosen);
  check_rule("choose_experts", logits, rule);
  if (weights.numel() == 0) return;
  if (logits.dtype() == DType::f64) return reference::choose_experts(weights, chosen, logits, rule);
  const ChooseExpertsArgs args{.dtype = logits.dtype(),
                               .logits = matrix_of(logits),
                               .weights = weights.data<float>(),
                               .chosen = chosen.data<int32_t>(),
                               .per_token = weights.dim(1),
                               .kind = rule.weights,
                               .bias = rule.bias.defined() ? rule.bias.data<float>() : nullptr,
                               .scale = rule.scale,
                               .columns = logits.dim(1),
                               .row_begin = 0,
                               .row_end = logits.dim(0)};
  run_rows(
      args, logits.device(), []<auto target>(const ChooseExpertsArgs& rows) { choose_experts_rows<target>(rows); });
}

ExpertGroups ExpertGroups::empty(int64_t tokens, int64_t experts, int64_t per_token, Device device, int64_t rows) {
  const auto numbers = [&](const Shape& shape) { return Tensor::empty(shape, DType::i32, device); };
  const int64_t slots = tokens * per_token, groups = most_groups(tokens, experts, per_token, rows);
  return {numbers({tokens, per_token}),
          numbers({slots}),
          numbers({groups}),
          numbers({groups + 1}),
          rows > few_grouped_tokens ? numbers({experts + 1}) : Tensor(),
          rows};
}

void choose_and_group_experts(const Tensor& weights, const ExpertGroups& groups, const Tensor& logits,
                              const ExpertRule& rule) {
  const char* operation = "choose_and_group_experts";
  check_choice(operation, logits, weights, groups.slots);
  check_rule(operation, logits, rule);
  const int64_t tokens = weights.dim(0), per_token = weights.dim(1), experts = logits.dim(1);
  if (logits.device().kind == DeviceKind::cpu || groups.rows < 1)
    throw ShapeError(std::string(operation) + ": expected logits on a device and groups of a row or more, found " +
                     describe(logits) + " and groups of " + std::to_string(groups.rows));
  const int64_t count = most_groups(tokens, experts, per_token, groups.rows);
  const auto check = [&](const char* name, const Tensor& numbers, int64_t size) {
    expect(operation, name, numbers).shape({size}).dtype(DType::i32).contiguous().device(logits.device());
  };
  check("tokens", groups.tokens, tokens * per_token);
  check("experts", groups.experts, count);
  check("bounds", groups.bounds, count + 1);
  if (groups.begins.defined()) check("begins", groups.begins, experts + 1);
  if (groups.chosen.defined())
    check_per_token(operation, "chosen", groups.chosen, tokens, per_token, DType::i32, logits.device());
  if (weights.numel() == 0) return;
  const ChooseExpertsArgs args{.dtype = logits.dtype(),
                               .logits = matrix_of(logits),
                               .weights = weights.data<float>(),
                               .chosen = nullptr,  // groups say it
                               .per_token = per_token,
                               .kind = rule.weights,
                               .bias = rule.bias.defined() ? rule.bias.data<float>() : nullptr,
                               .scale = rule.scale,
                               .columns = experts,
                               .row_begin = 0,
                               .row_end = tokens};
  const GroupExpertsArgs numbers{groups.slots.data<int32_t>(), groups.tokens.data<int32_t>(),
                                 groups.experts.data<int32_t>(), groups.bounds.data<int32_t>(), count};
  const bool few = tokens <= few_grouped_tokens && per_token <= few_grouped_choices && groups.rows >= tokens;
  if (!few || groups.begins.defined() || groups.chosen.defined())
    return choose_and_group_many(args, numbers, groups, logits.device());
  with_device(logits.device(), [&]<DeviceKind device>() { choose_and_group_experts_rows<device>(args, numbers); });
}

void choose_experts_backward(const Tensor& grad_logits, const Tensor& grad_weights, const Tensor& logits,
                             const Tensor& weights, const Tensor& chosen, const ExpertRule& rule) {
  const char* operation = "choose_experts_backward";
  check_choice(operation, logits, weights, chosen);
  check_matrix(operation, "grad_logits", grad_logits);
  expect(operation, "grad_logits", grad_logits).shape(logits.shape()).dtype(logits.dtype()).device(logits.device());
  check_per_token(operation, "grad_weights", grad_weights, logits.dim(0), weights.dim(1), wide(logits),
                  logits.device());
  if (weights.numel() == 0) return;
  if (logits.dtype() == DType::f64)
    return reference::choose_experts_backward(grad_logits, grad_weights, logits, weights, chosen, rule);
  const ChooseExpertsBackwardArgs args{.dtype = logits.dtype(),
                                       .grad_logits = matrix_of(grad_logits),
                                       .logits = matrix_of(logits),
                                       .grad_weights = grad_weights.data<float>(),
                                       .weights = weights.data<float>(),
                                       .chosen = chosen.data<int32_t>(),
                                       .per_token = weights.dim(1),
                                       .kind = rule.weights,
                                       .scale = rule.scale,
                                       .columns = logits.dim(1),
                                       .row_begin = 0,
                                       .row_end = logits.dim(0)};
  run_rows(
      args, logits.device(),
      []<auto target>(const ChooseExpertsBackwardArgs& rows) { choose_experts_backward_rows<target>(rows); });
}

void combine_experts(const Tensor& out, const Tensor& rows, const Tensor& slots, const Tensor& weights,
                     const Tensor& residual) {
  const char* operation = "combine_experts";
  check_matrix(operation, "rows", rows);
  check_slots(operation, slots, rows, out.dim(0));
  const Shape shape{slots.dim(0), rows.dim(1)};
  expect(operation, "out", out).shape(shape).dtype(rows.dtype()).rows_contiguous().device(rows.device());
  if (weights.defined())
    check_per_token(operation, "weights", weights, out.dim(0), slots.dim(1), wide(rows), rows.device());
  if (residual.defined())
    expect(operation, "residual", residual).shape(shape).dtype(rows.dtype()).rows_contiguous().device(rows.device());
  if (out.numel() == 0) return;
  if (rows.dtype() == DType::f64) return reference::combine_experts(out, rows, slots, weights, residual);
  const CombineExpertsArgs args{.dtype = rows.dtype(),
                                .out = matrix_of(out),
                                .rows = matrix_of(rows),
                                .slots = slots.data<int32_t>(),
                                .weights = weights.defined() ? weights.data<float>() : nullptr,
                                .residual = matrix_of(residual),
                                .per_token = slots.dim(1),
                                .columns = rows.dim(1),
                                .row_begin = 0,
                                .row_end = out.dim(0)};
  run_rows(
      args, rows.device(), []<auto target>(const CombineExpertsArgs& part) { combine_experts_rows<target>(part); });
}

void combine_experts_backward(const Tensor& grad_rows, const Tensor& grad_weights, const Tensor& grad_out,
                              const Tensor& rows, const Tensor& slots, const Tensor& weights) {
  const char* operation = "combine_experts_backward";
  check_matrix(operation, "rows", rows);
  check_matrix(operation, "grad_out", grad_out);
  check_slots(operation, slots, rows, grad_out.dim(0));
  const Shape shape{slots.dim(0), rows.dim(1)};
  expect(operation, "grad_out", grad_out).shape(shape).dtype(rows.dtype()).device(rows.device());
  if (grad_rows.defined())
    expect(operation, "grad_rows", grad_rows)
        .shape(rows.shape())
        .dtype(rows.dtype())
        .rows_contiguous()
        .device(rows.device());
  for (const auto& [name, tensor] : {std::pair{"weights", weights}, {"grad_weights", grad_weights}})
    if (tensor.defined())
      check_per_token(operation, name, tensor, grad_out.dim(0), slots.dim(1), wide(rows), rows.device());
  if (grad_out.numel() == 0) return;
  if (rows.dtype() == DType::f64)
    return reference::combine_experts_backward(grad_rows, grad_weights, grad_out, rows, slots, weights);
  const CombineExpertsBackwardArgs args{.dtype = rows.dtype(),
                                        .grad_rows = matrix_of(grad_rows),
                                        .grad_weights = grad_weights.defined() ? grad_weights.data<float>() : nullptr,
                                        .grad_out = matrix_of(grad_out),
                                        .rows = matrix_of(rows),
                                        .slots = slots.data<int32_t>(),
                                        .weights = weights.defined() ? weights.data<float>() : nullptr,
                                        .per_token = slots.dim(1),
                                        .columns = rows.dim(1),
                                        .row_begin = 0,
                                        .row_end = grad_out.dim(0)};
  run_rows(
      args, rows.device(),
      []<auto target>(const CombineExpertsBackwardArgs& part) { combine_experts_backward_rows<target>(part); });
}

}  // namespace lathe::kernels
