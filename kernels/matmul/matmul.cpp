#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <iterator>

#include "kernels/matmul/bands.h"
#include "kernels/matmul/checks.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/operands.h"
#include "kernels/matmul/quantized_gemv.h"
#include "kernels/matmul/reference.h"
#include "kernels/matmul/schedule.h"
#include "kernels/matmul/weights/ggml/device.h"
#include "kernels/matmul/weights/ggml/product.h"
#include "kernels/matmul/widened.h"

namespace lathe::kernels {
namespace {

bool on_cpu(const Tensor& operand) { return operand.device().kind == DeviceKind::cpu; }

// Every row once: those of lora_rows and, without a term, those between them.
std::vector<LoraRows> all_rows(const std::vector<LoraRows>& lora_rows, int64_t rows) {
  std::vector<LoraRows> all;
  int64_t done = 0;
  for (const LoraRows& lora : lora_rows) {
    if (lora.begin > done) all.push_back({done, lora.begin, {}, {}});
    if (lora.end > lora.begin) all.push_back(lora);
    done = lora.end;
  }
  if (done < rows) all.push_back({done, rows, {}, {}});
  return all;
}

SecondPair second_pair(const LoraRows& rows) {
  SecondPair pair{.begin = rows.begin, .end = rows.end};
  if (!rows.t.defined()) return pair;
  pair.k = rows.t.dim(1);
  pair.left = product_matrix(rows.t);
  if (const Tensor* dense = rows.b.dense()) pair.right = product_matrix(*dense);
  if (const PackedWeight* packed = rows.b.packed()) pair.panels = packed->product_panels();
  return pair;
}

// Whether a quantised weight is dequantised for one product, because no body reads its codes.
bool cpu_wants_dense(const Tensor& operand) { return operand.dtype() == DType::f16 || operand.dtype() == DType::f64; }
bool forward_wants_dense(const QuantizedWeight& weight, const Tensor& x) {
  return on_cpu(x) ? cpu_wants_dense(x) : !device::multiplies_codes(x, weight);
}
bool forward_wants_dense(const GgmlWeight& weight, const Tensor& x) {
  return on_cpu(x) ? x.dtype() == DType::f64 : !device::multiplies_blocks(x, weight);
}
bool gradient_wants_dense(const Tensor& grad_out) { return !on_cpu(grad_out) || cpu_wants_dense(grad_out); }

template <class Quantized>
Tensor dequantized(const Quantized& weight, const Tensor& operand) {
  const Tensor dense =
      Tensor::empty({weight.rows(), weight.columns()}, operand.dtype(), operand.device(), MemoryTag::workspace);
  weight.dequantize(dense);
  return dense;
}

template <class Quantized>
void forward_dequantized(const Tensor& out, const Tensor& x, const Quantized& weight, const LinearTerms& terms) {
  if (on_cpu(x)) return linear_forward(out, x, dequantized(weight, x), terms);
  linear_forward_in_bands(out, x, weight, terms);
}

void multiply(const ProductArgs& args, Device device) {
  device.kind == DeviceKind::cpu ? multiply_on_cpu(args) : device::multiply(args, device);
}

// A product for each of `rows`.
void forward_each(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms,
                  const std::vector<LoraRows>& rows) {
  for (const LoraRows& run : rows) {
    const auto of = [&](const Tensor& all) { return all.defined() ? all.slice(0, run.begin, run.end) : all; };
    linear_forward(of(out), of(x), weight,
                   {.lora_t = run.t, .lora_b = run.b, .bias = terms.bias, .residual = of(terms.residual)});
  }
}

}  // namespace

void linear_forward(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms) {
  check_linear_forward("linear_forward", out, x, weight, terms);
  const QuantizedWeight* quantized = weight.quantized();
  if (quantized && forward_wants_dense(*quantized, x)) return forward_dequantized(out, x, *quantized, terms);
  const GgmlWeight* ggml = weight.ggml();
  if (ggml && forward_wants_dense(*ggml, x)) return forward_dequantized(out, x, *ggml, terms);
  const bool at_once = on_cpu(x) && (x.dtype() == DType::f32 || x.dtype() == DType::bf16);
  std::vector<LoraRows> rows;
  if (!terms.lora_rows.empty()) {
    rows = all_rows(terms.lora_rows, x.dim(0));
    if (rows.size() == 1 || !at_once) return forward_each(out, x, weight, terms, rows);
  } else if (at_once && terms.lora_b.packed()) {
    rows = {{0, x.dim(0), terms.lora_t, terms.lora_b}};
  }
  if (on_cpu(x) && x.dtype() == DType::f16) return widened::linear_forward(out, x, weight, terms);
  if (on_cpu(x) && x.dtype() == DType::f64) return reference::linear_forward(out, x, weight, terms);
  if (ggml && on_cpu(x) && rows.empty() && terms.lora_t.defined()) rows = {{0, x.dim(0), terms.lora_t, terms.lora_b}};
  std::vector<SecondPair> pairs;
  std::transform(rows.begin(), rows.end(), std::back_inserter(pairs), second_pair);
  if (ggml && on_cpu(x)) {
    const GgmlProduct product{out, *ggml, pairs, terms.bias, terms.residual};
    return ggml_linear_forward(x, {&product, 1});
  }
  ProductArgs args = forward_args(out, x, weight, terms);
  args.second_pairs = pairs;
  if (quantized && !on_cpu(x)) return device::multiply_codes(args, *quantized, x.device());
  if (ggml) {
    const device::BlocksProduct product{args, ggml};
    return device::multiply_blocks({&product, 1}, x.device());
  }
  multiply(args, x.device());
}

void quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms) {
  check_quantized_gemv(out, x, weight, terms);
  if (on_cpu(x)) return linear_forward(out, x, weight, terms);
  device::multiply_codes_gemv(forward_args(out, x, weight, terms), weight, x.device());
}

void linear_input_gradient(const LinearInputGradient& call) {
  check_linear_input_gradient(call);
  const Tensor& grad_out = call.grad_out;
  if (const QuantizedWeight* quantized = call.weight.quantized(); quantized && gradient_wants_dense(grad_out)) {
    LinearInputGradient dense = call;
    dense.weight = dequantized(*quantized, grad_out);
    return linear_input_gradient(dense);
  }
  if (const GgmlWeight* ggml = call.weight.ggml()) {
    LinearInputGradient dense = call;
    dense.weight = dequantized(*ggml, grad_out);
    return linear_input_gradient(dense);
  }
  if (on_cpu(grad_out) && grad_out.dtype() == DType::f16) return widened::linear_input_gradient(call);
  if (on_cpu(grad_out) && grad_out.dtype() == DType::f64) return reference::linear_input_gradient(call);
  ProductArgs args{.layout = ProductLayout::rows_plain, .dtype = grad_out.dtype()};
  args.m = grad_out.dim(0), args.n = call.weight.columns(), args.k = grad_out.dim(1);
  args.left = product_matrix(grad_out);
  set_right(args, call.weight);
  args.k2 = call.lora_dt.defined() ? call.lora_dt.dim(1) : 0;
  args.left2 = product_matrix(call.lora_dt);
  args.right2 = product_matrix(call.lora_a);
  args.out = product_matrix(call.grad_x);
  if (call.accumulate) args.residual = args.out;
  multiply(args, grad_out.device());
}

void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale) {
  check_linear_weight_gradient(grad_weight, grad_out, x, cu_seqlens);
  if (on_cpu(x) && x.dtype() == DType::f16)
    return widened::linear_weight_gradient(grad_weight, grad_out, x, cu_seqlens, scale);
  if (on_cpu(x) && x.dtype() == DType::f64)
    return reference::linear_weight_gradient(grad_weight, grad_out, x, cu_seqlens, scale);
  ProductArgs args{.layout = ProductLayout::columns_plain, .dtype = x.dtype()};
  args.m = grad_out.dim(1), args.n = x.dim(1), args.k = x.dim(0);
  args.left = product_matrix(grad_out);
  args.right = product_matrix(x);
  args.scale = scale;
  args.residual = args.out = product_matrix(grad_weight);
  args.cu_seqlens = cu_seqlens.data<int32_t>();
  args.sequences = cu_seqlens.numel() - 1;
  multiply(args, x.device());
}

void matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout, float scale) {
  check_matmul(out, a, b, b_layout);
  if (on_cpu(a) && a.dtype() == DType::f16) return widened::matmul(out, a, b, b_layout, scale);
  if (on_cpu(a) && a.dtype() == DType::f64) return reference::matmul(out, a, b, b_layout, scale);
  const bool transposed = b_layout == Layout::transposed;
  ProductArgs args{.layout = transposed ? ProductLayout::rows_rows : ProductLayout::rows_plain, .dtype = a.dtype()};
  args.m = a.dim(0), args.n = transposed ? b.rows() : b.columns(), args.k = a.dim(1);
  args.left = product_matrix(a);
  set_right(args, b);
  args.scale = scale;
  args.out = product_matrix(out);
  multiply(args, a.device());
}

}  // namespace lathe::kernels
