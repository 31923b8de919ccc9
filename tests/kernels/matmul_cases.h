// The cases of kernels/matmul: odd extents, tails of every kind, packed and dense weights, every term.
#pragma once

#include <string>
#include <vector>

#include "kernels/matmul/matmul.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace matmul_cases {

inline Operand shared(std::string name, Shape shape, DType dtype) {
  return {.name = std::move(name), .shape = shape, .dtype = dtype, .values = normal(), .batch = Batch::shared};
}

inline std::string shape_name(int64_t m, int64_t n, int64_t k) {
  return std::to_string(m) + "_" + std::to_string(n) + "_" + std::to_string(k);
}

struct Extents {
  int64_t m, n, k, rank;
};

inline Case forward_case(Extents e, DType dtype, DType out_dtype, bool packed, bool bias, bool residual) {
  Case c;
  c.name = shape_name(e.m, e.n, e.k) + "_" + std::string(name_of(dtype)) + "_to_" + std::string(name_of(out_dtype)) +
           (packed ? "_packed" : "_dense") + (e.rank ? "_rank" + std::to_string(e.rank) : "") + (bias ? "_bias" : "") +
           (residual ? "_residual" : "");
  c.inputs = {{.name = "x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal(), .padding = 3},
              shared("weight", {e.n, e.k}, dtype)};
  if (e.rank) {
    c.inputs.push_back({.name = "lora_t", .shape = {e.m, e.rank}, .dtype = dtype, .values = normal()});
    c.inputs.push_back(shared("lora_b", {e.n, e.rank}, dtype));
  }
  if (bias) c.inputs.push_back(shared("bias", {e.n}, dtype));
  if (residual) c.inputs.push_back({.name = "residual", .shape = {e.m, e.n}, .dtype = out_dtype, .values = normal()});
  c.outputs = {{.name = "out", .shape = {e.m, e.n}, .dtype = out_dtype, .in_place_of = residual ? "residual" : ""}};
  if (!residual) c.outputs[0].padding = 1;
  c.run = [=](const Arguments& a) {
    kernels::LinearTerms terms;
    if (e.rank) terms.lora_t = a["lora_t"], terms.lora_b = a["lora_b"];
    if (bias) terms.bias = a["bias"];
    if (residual) terms.residual = a["residual"];
    if (packed) {
      kernels::linear_forward(a["out"], a["x"], kernels::pack_weight(a["weight"], a["weight"].dtype()), terms);
    } else {
      kernels::linear_forward(a["out"], a["x"], a["weight"], terms);
    }
  };
  c.reduction = e.k + e.rank;
  return c;
}

// Rows of x that start at multiples of 16 bytes.
inline Case aligned(Case c) {
  c.name += "_aligned";
  c.inputs[0].padding = 8;
  return c;
}

inline Case input_gradient_case(Extents e, DType dtype, bool packed, bool accumulate) {
  Case c;
  c.name = shape_name(e.m, e.n, e.k) + "_" + std::string(name_of(dtype)) + (packed ? "_packed" : "_dense") +
           (e.rank ? "_rank" + std::to_string(e.rank) : "") + (accumulate ? "_accumulate" : "");
  c.inputs = {{.name = "grad_out", .shape = {e.m, e.n}, .dtype = dtype, .values = normal(), .padding = 1},
              shared("weight", {e.n, e.k}, dtype)};
  if (e.rank) {
    c.inputs.push_back({.name = "lora_dt", .shape = {e.m, e.rank}, .dtype = dtype, .values = normal()});
    c.inputs.push_back(shared("lora_a", {e.rank, e.k}, dtype));
  }
  c.outputs = {{.name = "grad_x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal(), .accumulates = accumulate}};
  c.run = [=](const Arguments& a) {
    const Tensor dt = e.rank ? a["lora_dt"] : Tensor{}, la = e.rank ? a["lora_a"] : Tensor{};
    const kernels::Weight weight =
        packed ? kernels::Weight(kernels::pack_weight(a["weight"], a["weight"].dtype())) : kernels::Weight(a["weight"]);
    kernels::linear_input_gradient({.grad_x = a["grad_x"],
                                    .grad_out = a["grad_out"],
                                    .weight = weight,
                                    .lora_dt = dt,
                                    .lora_a = la,
                                    .accumulate = accumulate});
  };
  c.reduction = e.n + e.rank;
  if (!accumulate) {
    GradientCheck check;
    if (e.rank) {
      c.inputs.push_back({.name = "x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal()});
    } else {
      c.inputs.push_back({.name = "x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal()});
      check.forward = [](const Arguments& a) { kernels::linear_forward(a["out"], a["x"], a["weight"]); };
      check.results = {{.name = "out", .cotangent = "grad_out"}};
      check.gradients = {{.of = "x", .in = "grad_x"}};
      c.gradient = {check};
    }
  }
  return c;
}

inline Case weight_gradient_case(int64_t n, int64_t k, const std::vector<double>& bounds, DType dtype, float scale) {
  const auto tokens = static_cast<int64_t>(bounds.back());
  Case c;
  c.name =
      shape_name(tokens, n, k) + "_" + std::string(name_of(dtype)) + "_sequences" + std::to_string(bounds.size() - 1);
  c.inputs = {{.name = "grad_out", .shape = {tokens, n}, .dtype = dtype, .values = normal(), .padding = 5},
              {.name = "x", .shape = {tokens, k}, .dtype = dtype, .values = normal()},
              sequence_bounds(bounds)};
  c.outputs = {{.name = "grad_weight",
                .shape = {n, k},
                .dtype = DType::f32,
                .values = normal(),
                .batch = Batch::shared,
                .accumulates = true}};
  c.run = [=](const Arguments& a) {
    kernels::linear_weight_gradient(a["grad_weight"], a["grad_out"], a["x"], a["cu_seqlens"], scale);
  };
  c.reduction = tokens;
  return c;
}

inline Case product_case(Extents e, DType dtype, DType out_dtype, kernels::Layout layout) {
  const bool transposed = layout == kernels::Layout::transposed;
  Case c;
  c.name = shape_name(e.m, e.n, e.k) + "_" + std::string(name_of(dtype)) + "_to_" + std::string(name_of(out_dtype)) +
           (transposed ? "_transposed" : "_plain");
  c.inputs = {{.name = "a", .shape = {e.m, e.k}, .dtype = dtype, .values = normal(), .padding = 1},
              shared("b", transposed ? Shape{e.n, e.k} : Shape{e.k, e.n}, dtype)};
  c.outputs = {{.name = "out", .shape = {e.m, e.n}, .dtype = out_dtype}};
  c.run = [=](const Arguments& a) { kernels::matmul(a["out"], a["a"], a["b"], layout, 0.75f); };
  c.reduction = e.k;
  return c;
}

// Products as a program runs them: the weight is packed once.
inline Case timed_forward(Extents e, DType dtype) {
  Case c = forward_case(e, dtype, dtype, true, false, false);
  c.product = ProductOf{kernels::ProductLayout::rows_rows, "out", "x", "weight"};
  c.inputs[0].padding = c.outputs[0].padding = 0;
  c.flops = 2.0 * e.m * e.n * e.k;
  c.start = [](const Arguments& a) {
    return [a, weight = kernels::pack_weight(a["weight"], a["weight"].dtype())] {
      kernels::linear_forward(a["out"], a["x"], weight);
    };
  };
  return c;
}

// A decode step of m sequences with LoRA, of one adapter or each of its own.
inline Case timed_adapters(Extents e, DType dtype, bool each_its_own) {
  Case c = timed_forward({e.m, e.n, e.k, 0}, dtype);
  c.name += "_rank" + std::to_string(e.rank) + (each_its_own ? "_each_its_own" : "_one_adapter");
  const int64_t adapters = each_its_own ? e.m : 1, rows = e.m / adapters;
  c.inputs.push_back({.name = "lora_t", .shape = {e.m, e.rank}, .dtype = dtype, .values = normal()});
  c.inputs.push_back(shared("lora_b", {adapters * e.n, e.rank}, dtype));
  c.start = [=](const Arguments& a) {
    kernels::LinearTerms terms;
    for (int64_t i = 0; i < adapters; ++i)
      terms.lora_rows.push_back({i * rows, (i + 1) * rows, a["lora_t"].slice(0, i * rows, (i + 1) * rows),
                                 kernels::pack_weight(a["lora_b"].slice(0, i * e.n, (i + 1) * e.n), dtype)});
    return [a, terms, weight = kernels::pack_weight(a["weight"], a["weight"].dtype())] {
      kernels::linear_forward(a["out"], a["x"], weight, terms);
    };
  };
  return c;
}

inline Case timed_input_gradient(Extents e, DType dtype) {
  Case c = input_gradient_case(e, dtype, true, false);
  c.inputs.resize(2);  // without what only the gradient check needs
  c.product = ProductOf{kernels::ProductLayout::rows_plain, "grad_x", "grad_out", "weight"};
  c.inputs[0].padding = 0;
  c.flops = 2.0 * e.m * e.n * e.k;
  c.start = [](const Arguments& a) {
    return [a, weight = kernels::pack_weight(a["weight"], a["weight"].dtype())] {
      kernels::linear_input_gradient({.grad_x = a["grad_x"], .grad_out = a["grad_out"], .weight = weight});
    };
  };
  return c;
}

inline Case timed_weight_gradient(int64_t tokens, int64_t n, int64_t k, DType dtype) {
  Case c = weight_gradient_case(n, k, {0, static_cast<double>(tokens)}, dtype, 1.0f);
  c.product = ProductOf{kernels::ProductLayout::columns_plain, "grad_weight", "grad_out", "x"};
  c.inputs[0].padding = 0;
  c.flops = 2.0 * tokens * n * k;
  return c;
}

}  // namespace matmul_cases

inline std::vector<Operation> matmul_operations() {
  using namespace matmul_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  Operation forward{.name = "linear_forward", .cuda_body = true},
      input{.name = "linear_input_gradient", .cuda_body = true};
  Operation weight{.name = "linear_weight_gradient", .cuda_body = true}, product{.name = "matmul", .cuda_body = true};
  for (DType dtype : {f32, bf16}) {
    forward.cases.push_back(forward_case({1, 70, 33, 0}, dtype, dtype, true, false, false));
    forward.cases.push_back(forward_case({5, 33, 1, 3}, dtype, f32, true, true, false));
    forward.cases.push_back(forward_case({17, 96, 67, 4}, dtype, dtype, true, true, true));
    forward.cases.push_back(forward_case({31, 41, 64, 8}, dtype, dtype, false, false, true));
    forward.cases.push_back(forward_case({2, 3, 1201, 0}, dtype, f32, true, false, false));
    input.cases.push_back(input_gradient_case({1, 67, 35, 0}, dtype, true, false));
    input.cases.push_back(input_gradient_case({15, 33, 66, 5}, dtype, true, true));
    input.cases.push_back(input_gradient_case({29, 64, 31, 8}, dtype, true, false));
    input.cases.push_back(input_gradient_case({6, 41, 47, 0}, dtype, false, false));
    weight.cases.push_back(weight_gradient_case(35, 47, {0, 1, 1, 9, 40}, dtype, 0.5f));
    weight.cases.push_back(weight_gradient_case(8, 65, {0, 33}, dtype, 1.0f));
    weight.cases.push_back(weight_gradient_case(70, 4, {0, 7, 30}, dtype, 2.0f));
    for (kernels::Layout layout : {kernels::Layout::transposed, kernels::Layout::plain}) {
      product.cases.push_back(product_case({37, 8, 67, 0}, dtype, dtype, layout));
      product.cases.push_back(product_case({9, 70, 5, 0}, dtype, f32, layout));
      product.cases.push_back(product_case({33, 17, 40, 0}, dtype, dtype, layout));
    }
  }
  forward.cases.push_back(forward_case({17, 96, 67, 4}, f16, f16, true, true, true));
  forward.cases.push_back(forward_case({31, 41, 64, 8}, f16, f32, false, true, false));
  input.cases.push_back(input_gradient_case({15, 33, 66, 5}, f16, true, true));
  input.cases.push_back(input_gradient_case({6, 41, 47, 0}, f16, false, false));
  weight.cases.push_back(weight_gradient_case(35, 47, {0, 1, 1, 9, 40}, f16, 0.5f));
  product.cases.push_back(product_case({37, 8, 67, 0}, f16, f16, kernels::Layout::transposed));
  product.cases.push_back(product_case({9, 70, 5, 0}, f16, f32, kernels::Layout::plain));
  // Tiles of devices: extents beyond one, every shape of them, tails, rows that are and are not aligned.
  Operation dense{.name = "linear_forward_dense", .cuda_body = true};
  for (DType dtype : {f32, bf16}) {
    dense.cases.push_back(forward_case({3, 136, 96, 0}, dtype, dtype, false, true, false));
    dense.cases.push_back(forward_case({130, 33, 45, 5}, dtype, dtype, false, false, true));
    dense.cases.push_back(aligned(forward_case({70, 24, 264, 16}, dtype, f32, false, true, true)));
  }
  // Few rows of bf16, which a card of sm_90 takes by bulk copies; on others, too.
  dense.cases.push_back(aligned(forward_case({1, 16, 1096, 0}, bf16, bf16, true, false, false)));
  dense.cases.push_back(aligned(forward_case({3, 61, 64, 16}, bf16, f32, false, true, false)));
  dense.cases.push_back(aligned(forward_case({8, 29, 328, 72}, bf16, bf16, true, true, true)));
  dense.cases.push_back(aligned(forward_case({9, 333, 72, 0}, bf16, bf16, true, false, true)));
  dense.cases.push_back(aligned(forward_case({16, 13, 8, 8}, f16, f16, false, true, true)));
  weight.cases.push_back(
      weight_gradient_case(40, 1, {0, 3, 19}, bf16, 1.0f));  // a bias: one column, whose rows are not aligned
  input.cases.push_back(input_gradient_case({130, 20, 260, 0}, bf16, false, false));
  // An adapter's, over more tokens than are under way at a time.
  weight.cases.push_back(weight_gradient_case(70, 16, {0, 460, 470}, bf16, 1.0f));
  weight.cases.push_back(weight_gradient_case(16, 40, {0, 460}, bf16, 1.0f));
  weight.cases.push_back(weight_gradient_case(130, 260, {0, 20, 27}, bf16, 0.5f));
  weight.cases.push_back(weight_gradient_case(70, 90, {0, 70, 72}, bf16, 0.5f));
  for (DType dtype : {f32, bf16}) {
    forward.timed.push_back(timed_forward({512, 1536, 576, 0}, dtype));
    forward.timed.push_back(timed_forward({512, 576, 1536, 0}, dtype));
    forward.timed.push_back(timed_forward({1, 1536, 576, 0}, dtype));
    forward.timed.push_back(timed_forward({512, 2048, 2048, 0}, dtype));
    input.timed.push_back(timed_input_gradient({512, 1536, 576, 0}, dtype));
    weight.timed.push_back(timed_weight_gradient(512, 1536, 576, dtype));
    Case on_device = timed_forward({512, 1536, 576, 0}, dtype);
    on_device.start = {};
    on_device.run = [](const Arguments& a) { kernels::linear_forward(a["out"], a["x"], a["weight"]); };
    on_device.name = "512_1536_576_" + std::string(name_of(dtype));
    dense.timed.push_back(on_device);
  }
  for (bool each_its_own : {false, true}) {
    forward.timed.push_back(timed_adapters({16, 1536, 576, 16}, bf16, each_its_own));
    forward.timed.push_back(timed_adapters({16, 576, 1536, 16}, bf16, each_its_own));
  }
  forward.timed.push_back(timed_forward({1, 4096, 4096, 0}, bf16));
  forward.timed.push_back(timed_forward({4096, 4096, 4096, 0}, bf16));
  // A decode step of it: what attention gives, and what the feed-forward part does.
  for (const int64_t rows : {1, 8, 16}) {
    forward.timed_on_cards.push_back(timed_forward({rows, 2048, 2048, 0}, bf16));
    forward.timed_on_cards.push_back(timed_forward({rows, 2048, 8192, 0}, bf16));
  }
  forward.timed_on_cards.push_back(timed_forward({1, 128256, 2048, 0}, bf16));
  // A training step of a 1B Llama: four rows of 1024 tokens.
  forward.timed_on_cards.push_back(timed_forward({4096, 512, 2048, 0}, bf16));
  forward.timed_on_cards.push_back(timed_forward({4096, 8192, 2048, 0}, bf16));
  forward.timed_on_cards.push_back(timed_forward({4096, 2048, 8192, 0}, bf16));
  input.timed_on_cards.push_back(timed_input_gradient({4096, 2048, 8192, 0}, bf16));
  weight.timed_on_cards.push_back(timed_weight_gradient(4096, 2048, 8192, bf16));
  weight.timed_on_cards.push_back(timed_weight_gradient(4096, 2048, 16, bf16));
  weight.timed_on_cards.push_back(timed_weight_gradient(4096, 16, 2048, bf16));
  return {forward, dense, input, weight, product};
}

}  // namespace lathe::testing
