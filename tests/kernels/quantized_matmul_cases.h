// The cases of products with quantised weights (kernels/matmul/weights/quantized_weight.h): both formats and dtypes,
// few rows and many, ends inside panels, more than one chain along k, LoRA, bias and residual.
#pragma once

#include <string>
#include <vector>

#include "kernels/matmul/matmul.h"
#include "kernels/matmul/quantized_gemv.h"
#include "tests/kernels/nf4_cases.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace quantized_matmul_cases {

using kernels::QuantizedFormat;
using kernels::QuantizedWeight;

struct Extents {
  int64_t m, n, k, rank = 0, block_size = 64;
};

// Scales are inputs in f32 and codes in integers, so that the reference multiplies the very same weight.
inline std::vector<Operand> weight_inputs(const Extents& e, QuantizedFormat format) {
  if (format == QuantizedFormat::nf4)
    return nf4_cases::weight_inputs(e.n, e.k, e.block_size, kernels::Nf4Scales::nested);
  Operand codes = nf4_cases::shared("codes", {e.n, e.k}, DType::i8, integers(-127, 127));
  codes.may_repeat = true;
  return {codes, nf4_cases::shared("scales", {e.n, (e.k + 63) / 64}, DType::f32, uniform(0.01, 0.04))};
}

inline QuantizedWeight weight_of(const Arguments& a, const Extents& e, QuantizedFormat format) {
  if (format == QuantizedFormat::nf4) return QuantizedWeight::pack(nf4_cases::weight_of(a, e.n, e.k, e.block_size));
  return QuantizedWeight::pack(kernels::Int8Weight{a["codes"], a["scales"]});
}

// The weight that the product is defined with: each element rounded to the dtype of x, here widened to the f64 of the
// reference.
inline Tensor rounded_weight(const Arguments& a, const Extents& e, QuantizedFormat format, DType dtype) {
  const Tensor dense = Tensor::empty({e.n, e.k}, DType::f64);
  weight_of(a, e, format).dequantize(dense);
  for (double& v : dense.span<double>()) v = round_to(dtype, v);
  return dense;
}

inline std::string name_of_case(const Extents& e, QuantizedFormat format, DType dtype) {
  return std::string(format == QuantizedFormat::nf4 ? "nf4_" : "int8_") + std::to_string(e.m) + "_" +
         std::to_string(e.n) + "_" + std::to_string(e.k) + "_" + std::string(name_of(dtype)) +
         (e.rank ? "_rank" + std::to_string(e.rank) : "") +
         (e.block_size != 64 ? "_block" + std::to_string(e.block_size) : "");
}

inline Case forward_case(Extents e, QuantizedFormat format, DType dtype, DType out_dtype, bool terms = false) {
  Case c{.name = name_of_case(e, format, dtype) + "_to_" + std::string(name_of(out_dtype)) + (terms ? "_terms" : "")};
  c.inputs = weight_inputs(e, format);
  c.inputs.insert(c.inputs.begin(), {.name = "x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal()});
  if (e.rank) {
    c.inputs.push_back({.name = "lora_t", .shape = {e.m, e.rank}, .dtype = dtype, .values = normal()});
    c.inputs.push_back(nf4_cases::shared("lora_b", {e.n, e.rank}, dtype, normal()));
  }
  if (terms) {
    c.inputs.push_back(nf4_cases::shared("bias", {e.n}, dtype, normal()));
    c.inputs.push_back({.name = "residual", .shape = {e.m, e.n}, .dtype = dtype, .values = normal()});
  }
  c.outputs = {{.name = "out", .shape = {e.m, e.n}, .dtype = out_dtype}};
  const auto multiply = [=](const Arguments& a, const kernels::Weight& weight) {
    kernels::LinearTerms linear;
    if (e.rank) linear.lora_t = a["lora_t"], linear.lora_b = a["lora_b"];
    if (terms) linear.bias = a["bias"], linear.residual = a["residual"];
    kernels::linear_forward(a["out"], a["x"], weight, linear);
  };
  c.run = [=](const Arguments& a) { multiply(a, weight_of(a, e, format)); };
  c.reference = [=](const Arguments& a) { multiply(a, rounded_weight(a, e, format, dtype)); };
  c.reduction = e.k + e.rank;
  return c;
}

// Its weight is not rounded to x's dtype on the way.
inline Case gemv_case(Extents e, QuantizedFormat format, DType dtype, DType out_dtype, bool terms = false) {
  Case c = forward_case(e, format, dtype, out_dtype, terms);
  const auto linear_terms = [=](const Arguments& a) {
    kernels::LinearTerms linear;
    if (e.rank) linear.lora_t = a["lora_t"], linear.lora_b = a["lora_b"];
    if (terms) linear.bias = a["bias"], linear.residual = a["residual"];
    return linear;
  };
  c.run = [=](const Arguments& a) {
    kernels::quantized_gemv(a["out"], a["x"], weight_of(a, e, format), linear_terms(a));
  };
  c.reference = [=](const Arguments& a) {
    kernels::linear_forward(a["out"], a["x"], rounded_weight(a, e, format, DType::f32), linear_terms(a));
  };
  return c;
}

inline Case input_gradient_case(Extents e, QuantizedFormat format, DType dtype, bool accumulate = false) {
  Case c{.name = name_of_case(e, format, dtype) + (accumulate ? "_accumulate" : "")};
  c.inputs = weight_inputs(e, format);
  c.inputs.insert(c.inputs.begin(), {.name = "grad_out", .shape = {e.m, e.n}, .dtype = dtype, .values = normal()});
  if (e.rank) {
    c.inputs.push_back({.name = "lora_dt", .shape = {e.m, e.rank}, .dtype = dtype, .values = normal()});
    c.inputs.push_back(nf4_cases::shared("lora_a", {e.rank, e.k}, dtype, normal()));
  }
  c.outputs = {{.name = "grad_x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal(), .accumulates = accumulate}};
  const auto multiply = [=](const Arguments& a, const kernels::Weight& weight) {
    const Tensor dt = e.rank ? a["lora_dt"] : Tensor{}, lora_a = e.rank ? a["lora_a"] : Tensor{};
    kernels::linear_input_gradient({.grad_x = a["grad_x"],
                                    .grad_out = a["grad_out"],
                                    .weight = weight,
                                    .lora_dt = dt,
                                    .lora_a = lora_a,
                                    .accumulate = accumulate});
  };
  c.run = [=](const Arguments& a) { multiply(a, weight_of(a, e, format)); };
  c.reference = [=](const Arguments& a) { multiply(a, rounded_weight(a, e, format, dtype)); };
  c.reduction = e.n + e.rank;
  if (!e.rank && !accumulate) {
    c.inputs.push_back({.name = "x", .shape = {e.m, e.k}, .dtype = dtype, .values = normal()});
    c.gradient = {{.forward =
                       [=](const Arguments& a) {
                         kernels::linear_forward(a["out"], a["x"], rounded_weight(a, e, format, dtype));
                       },
                   .results = {{.name = "out", .cotangent = "grad_out"}},
                   .gradients = {{.of = "x", .in = "grad_x"}}}};
  }
  return c;
}

// As a program runs them: packed once. bytes: the codes and scales as packed, the other operands once.
inline Case timed_forward(Extents e, QuantizedFormat format, DType dtype) {
  Case c = forward_case(e, format, dtype, dtype);
  const double weight_bytes =
      static_cast<double>(e.n) * static_cast<double>(e.k) * (format == QuantizedFormat::nf4 ? 4.5 : 8.5) / 8;
  c.flops = 2.0 * e.m * e.n * e.k;
  c.bytes = weight_bytes + static_cast<double>(e.m * (e.n + e.k) * size_of(dtype));
  c.start = [=](const Arguments& a) {
    return [a, weight = weight_of(a, e, format)] { kernels::linear_forward(a["out"], a["x"], weight); };
  };
  return c;
}

inline Case timed_gemv(Extents e, QuantizedFormat format, DType dtype) {
  Case c = timed_forward(e, format, dtype);
  c.start = [=](const Arguments& a) {
    return [a, weight = weight_of(a, e, format)] { kernels::quantized_gemv(a["out"], a["x"], weight); };
  };
  return c;
}

inline Case timed_input_gradient(Extents e, QuantizedFormat format, DType dtype) {
  Case c = input_gradient_case(e, format, dtype);
  c.inputs.pop_back();  // x, which only the gradient check needs
  c.flops = 2.0 * e.m * e.n * e.k;
  c.start = [=](const Arguments& a) {
    return [a, weight = weight_of(a, e, format)] {
      kernels::linear_input_gradient({.grad_x = a["grad_x"], .grad_out = a["grad_out"], .weight = weight});
    };
  };
  return c;
}

}  // namespace quantized_matmul_cases

inline std::vector<Operation> quantized_matmul_operations() {
  using namespace quantized_matmul_cases;
  Operation forward{.name = "quantized_linear_forward"}, gradient{.name = "quantized_linear_input_gradient"};
  Operation on_devices{.name = "quantized_linear_on_devices", .cuda_body = true},
      gemv{.name = "quantized_gemv", .cuda_body = true};
  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      forward.cases.push_back(forward_case({1, 70, 96}, format, dtype, dtype));
      forward.cases.push_back(forward_case({3, 33, 64, 4}, format, dtype, DType::f32, true));
      forward.cases.push_back(forward_case({17, 70, 128, 3}, format, dtype, dtype, true));
      forward.cases.push_back(forward_case({5, 9, 1056}, format, dtype, dtype));  // three chains in f32, two in bf16
      gradient.cases.push_back(input_gradient_case({1, 35, 64}, format, dtype));
      gradient.cases.push_back(input_gradient_case({9, 70, 96, 5}, format, dtype, true));
      gradient.cases.push_back(input_gradient_case({3, 1030, 32}, format, dtype));
    }
    // Codes in tiles: more steps than stages and than a chunk of scales, a last block of columns that is not full;
    // LoRA's tiles.
    on_devices.cases.push_back(forward_case({3, 37, 1216}, format, DType::bf16, DType::bf16));
    on_devices.cases.push_back(forward_case({16, 33, 128, 72}, format, DType::f16, DType::f32, true));
    on_devices.cases.push_back(forward_case({17, 40, 96, 8}, format, DType::bf16, DType::bf16, true));  // dequantised
    on_devices.cases.push_back(input_gradient_case({19, 24, 64}, format, DType::bf16));
    gemv.cases.push_back(gemv_case({1, 17, 1216}, format, DType::bf16, DType::bf16));
    gemv.cases.push_back(gemv_case({4, 9, 2112, 8}, format, DType::bf16, DType::f32, true));
    gemv.cases.push_back(gemv_case({3, 18, 64, 72}, format, DType::f16, DType::f16, true));
    gemv.timed.push_back(timed_gemv({1, 4096, 4096}, format, DType::bf16));
    gemv.timed.push_back(timed_gemv({4, 4096, 4096}, format, DType::bf16));
    gemv.timed.push_back(timed_gemv({1, 4096, 14336}, format, DType::bf16));
  }
  on_devices.cases.push_back(forward_case({5, 33, 64}, QuantizedFormat::nf4, DType::f32, DType::f32));
  forward.cases.push_back(forward_case({2, 40, 64}, QuantizedFormat::nf4, DType::f16, DType::f16));
  forward.cases.push_back(forward_case({2, 40, 96, 0, 32}, QuantizedFormat::nf4, DType::bf16, DType::bf16));
  forward.cases.push_back(forward_case({2, 40, 192, 0, 4096}, QuantizedFormat::nf4, DType::bf16, DType::bf16));
  gradient.cases.push_back(input_gradient_case({2, 40, 192, 0, 128}, QuantizedFormat::nf4, DType::f32));

  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8}) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      forward.timed.push_back(timed_forward({1, 4096, 4096}, format, dtype));
      forward.timed.push_back(timed_forward({4, 4096, 4096}, format, dtype));
      on_devices.timed.push_back(timed_forward({1, 4096, 14336}, format, dtype));
      forward.timed.push_back(timed_forward({512, 2048, 2048}, format, dtype));
      gradient.timed.push_back(timed_input_gradient({512, 2048, 2048}, format, dtype));
    }
  }
  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8})
    for (const Extents& e : {Extents{1, 4096, 4096}, Extents{1, 14336, 4096}, Extents{16, 4096, 4096}})
      on_devices.timed_on_cards.push_back(timed_forward(e, format, DType::bf16));
  return {forward, gradient, on_devices, gemv};
}

}  // namespace lathe::testing
