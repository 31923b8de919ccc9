#include "kernels/lora_dropout/lora_dropout.h"

#include <algorithm>

#include "kernels/add/add.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/lora_dropout/bodies.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {
namespace {

Tensor empty_workspace(const Tensor& like) {
  return Tensor::empty(like.shape(), like.dtype(), like.device(), MemoryTag::workspace);
}

Tensor dropped(const Tensor& x, const DropoutParams& params, const DroppedSequences& sequences) {
  Tensor kept = empty_workspace(x);
  dropout(kept, x, sequences.cu_seqlens, sequences.sample_numbers, params);
  return kept;
}

// ---- whether a device's bodies take the operands ----

bool lies_for_vectors(const Tensor& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.raw()) % 16 == 0 && matrix.stride(0) * size_of(matrix.dtype()) % 16 == 0;
}
bool has_body(const Tensor& x) {
  return x.device().kind != DeviceKind::cpu && size_of(x.dtype()) == 2 && x.numel() > 0 && x.dim(1) % 8 == 0 &&
         lies_for_vectors(x);
}

int64_t units(int64_t rank) { return (rank + rank_unit - 1) / rank_unit; }
bool suits_rank(int64_t rank) { return rank > 0 && rank % 8 == 0 && units(rank) <= units_of_one_term; }
bool suits(const DroppedShrink& term) { return suits_rank(term.a.dim(0)) && lies_for_vectors(term.a); }
bool suits(const DroppedGradient& term) {
  return suits_rank(term.dt.dim(1)) && lies_for_vectors(term.dt) && lies_for_vectors(term.grad_a);
}

// ---- several terms at once ----

DropoutParams without_stream(DropoutParams params) {
  params.stream = 0;
  return params;
}
bool differ_in_stream_alone(const DropoutParams& a, const DropoutParams& b) {
  return a.probability == b.probability && a.seed == b.seed && a.step == b.step && a.stored_step == b.stored_step;
}

DroppedTermArgs args_of(const DroppedShrink& term) {
  return {matrix_of(term.a), matrix_of(term.t), term.a.dim(0), term.dropout.stream};
}
DroppedTermArgs args_of(const DroppedGradient& term) {
  return {matrix_of(term.dt), matrix_of(term.grad_a), term.dt.dim(1), term.dropout.stream};
}

// How many of the terms, from the first on, one launch takes; 0 where the first has no body.
template <class Term>
size_t terms_of_launch(std::span<const Term> terms) {
  int64_t all = 0;
  size_t count = 0;
  for (const Term& term : terms) {
    all += units(args_of(term).rank);
    if (!suits(term) || !differ_in_stream_alone(term.dropout, terms[0].dropout) || count == most_dropped_terms ||
        (count > 0 && all > units_of_terms))
      break;
    ++count;
  }
  return count;
}

template <class Term>
DroppedProductArgs product_args(const Tensor& x, std::span<const Term> terms, float scale,
                                const DroppedSequences& sequences) {
  DroppedProductArgs args{.dtype = x.dtype(),
                          .x = matrix_of(x),
                          .columns = x.dim(1),
                          .cu_seqlens = sequences.cu_seqlens.data<int32_t>(),
                          .sample_numbers = sequences.sample_numbers.data<int32_t>(),
                          .sequences = sequences.sample_numbers.dim(0),
                          .mask = dropout_mask(without_stream(terms[0].dropout), x.device()),
                          .scale = scale,
                          .terms = {},
                          .count = static_cast<int>(terms.size())};
  std::transform(terms.begin(), terms.end(), args.terms, [](const Term& term) { return args_of(term); });
  return args;
}

// launch(terms) for as many as go together, else alone(term).
template <class Term, class Launch, class Alone>
void each_launch(const Tensor& x, std::span<const Term> terms, const Launch& launch, const Alone& alone) {
  while (!terms.empty()) {
    const size_t together = has_body(x) ? terms_of_launch(terms) : 0;
    together > 0 ? launch(terms.first(together)) : alone(terms[0]);
    terms = terms.subspan(std::max<size_t>(together, 1));
  }
}

void expect_input(std::string_view operation, const Tensor& x, const DroppedSequences& sequences,
                  const DropoutParams& params) {
  expect(operation, "x", x).rank(2).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "x", x);
  expect_dropout(operation, x, sequences.cu_seqlens, sequences.sample_numbers, params);
}

}  // namespace

void dropped_shrink(const Tensor& x, std::span<const DroppedShrink> terms, float scale,
                    const DroppedSequences& sequences) {
  constexpr const char* operation = "dropped_shrink";
  for (const DroppedShrink& term : terms) {
    expect_input(operation, x, sequences, term.dropout);
    expect(operation, "a", term.a).rank(2).dtype(x.dtype()).rows_contiguous().device(x.device());
    expect(operation, "a", term.a).shape({term.a.dim(0), x.dim(1)});
    expect(operation, "t", term.t).shape({x.dim(0), term.a.dim(0)}).dtype(x.dtype()).rows_contiguous();
    expect(operation, "t", term.t).device(x.device());
  }
  each_launch(
      x, terms,
      [&](std::span<const DroppedShrink> together) {
        const DroppedProductArgs args = product_args(x, together, scale, sequences);
        with_device(x.device(), [&]<DeviceKind kind>() { dropped_shrink<kind>(args); });
      },
      [&](const DroppedShrink& term) {
        matmul(term.t, dropped(x, term.dropout, sequences), term.a, Layout::transposed, scale);
      });
}

void dropped_factor_gradients(const Tensor& x, std::span<const DroppedGradient> terms,
                              const DroppedSequences& sequences) {
  constexpr const char* operation = "dropped_factor_gradients";
  for (const DroppedGradient& term : terms) {
    expect_input(operation, x, sequences, term.dropout);
    expect(operation, "dt", term.dt).rank(2).dtype(x.dtype()).rows_contiguous().device(x.device());
    expect(operation, "dt", term.dt).shape({x.dim(0), term.dt.dim(1)});
    expect(operation, "grad_a", term.grad_a).shape({term.dt.dim(1), x.dim(1)}).rows_contiguous().device(x.device());
    expect(operation, "grad_a", term.grad_a).dtype(x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  }
  each_launch(
      x, terms,
      [&](std::span<const DroppedGradient> together) {
        const DroppedProductArgs args = product_args(x, together, 1.0f, sequences);
        with_device(x.device(), [&]<DeviceKind kind>() { dropped_factor_gradients<kind>(args); });
      },
      [&](const DroppedGradient& term) {
        linear_weight_gradient(term.grad_a, term.dt, dropped(x, term.dropout, sequences), sequences.cu_seqlens);
      });
}

void dropped_input_gradient(const DroppedInputGradient& call, const DroppedSequences& sequences) {
  constexpr const char* operation = "dropped_input_gradient";
  const auto& [grad_x, dt, a, params] = call;
  expect_input(operation, grad_x, sequences, params);
  expect(operation, "grad_x", grad_x).contiguous();
  expect(operation, "a", a).rank(2).rows_contiguous().device(grad_x.device());
  expect(operation, "a", a).shape({a.dim(0), grad_x.dim(1)});
  expect(operation, "dt", dt).shape({grad_x.dim(0), a.dim(0)}).dtype(a.dtype()).rows_contiguous();
  expect(operation, "dt", dt).device(grad_x.device());
  if (has_body(grad_x) && dt.dtype() == grad_x.dtype() && suits_rank(a.dim(0)) && lies_for_vectors(dt) &&
      lies_for_vectors(a)) {
    const DroppedExpandArgs args{.dtype = dt.dtype(),
                                 .grad_x = matrix_of(grad_x),
                                 .dt = matrix_of(dt),
                                 .a = matrix_of(a),
                                 .columns = grad_x.dim(1),
                                 .rank = a.dim(0),
                                 .cu_seqlens = sequences.cu_seqlens.data<int32_t>(),
                                 .sample_numbers = sequences.sample_numbers.data<int32_t>(),
                                 .sequences = sequences.sample_numbers.dim(0),
                                 .mask = dropout_mask(params, grad_x.device())};
    return with_device(grad_x.device(), [&]<DeviceKind kind>() { dropped_input_gradient<kind>(args); });
  }
  const Tensor through = empty_workspace(grad_x);
  matmul(through, dt, a, Layout::plain);
  dropout(through, through, sequences.cu_seqlens, sequences.sample_numbers, params);
  add(grad_x, grad_x, through);
}

}  // namespace lathe::kernels
