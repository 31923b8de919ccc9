#include "kernels/matmul/matmul.h"

#include <string>

#include "core/error.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/cpu/gemm.h"
#include "kernels/matmul/quantized_gemv.h"
#include "kernels/matmul/reference.h"
#include "kernels/matmul/widened.h"

namespace lathe::kernels {
namespace {

using gemm::Element;

// One argument of one operation, for the sentence that says what is wrong with it.
struct Argument {
  const char* operation;
  const char* name;
  Device device;  // that of the operation
  [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
    throw ShapeError(std::string(operation) + ": " + name + ": expected " + expected + ", found " + found);
  }
};

std::string text(int64_t rows, int64_t columns) { return to_string(Shape{rows, columns}); }

// A matrix whose rows are contiguous; the rows themselves may lie apart.
void check_matrix(Argument argument, const Tensor& tensor, int64_t rows, int64_t columns) {
  if (!tensor.defined()) argument.fail(text(rows, columns), "an undefined tensor");
  if (tensor.rank() != 2 || tensor.dim(0) != rows || tensor.dim(1) != columns)
    argument.fail(text(rows, columns), describe(tensor));
  if (tensor.device() != argument.device) argument.fail("a tensor on " + to_string(argument.device), describe(tensor));
  if (columns > 1 && rows > 0 && tensor.stride(1) != 1)
    argument.fail("contiguous rows", describe(tensor) + " with strided rows");
}

void check_dtype(Argument argument, const Tensor& tensor, DType dtype) {
  if (tensor.dtype() != dtype) argument.fail("dtype " + std::string(name_of(dtype)), describe(tensor));
}

void check_dtype_or_f32(Argument argument, const Tensor& tensor, DType dtype) {
  if (tensor.dtype() != dtype && tensor.dtype() != DType::f32)
    argument.fail("dtype " + std::string(name_of(dtype)) + " or f32", describe(tensor));
}

void check_operand(Argument argument, const Tensor& tensor) {
  if (!tensor.defined() || tensor.rank() != 2)
    argument.fail("a matrix", tensor.defined() ? describe(tensor) : "an undefined tensor");
  const bool f64 = tensor.dtype() == DType::f64;
  if (!is_floating(tensor.dtype()) || (f64 && argument.device.kind != DeviceKind::cpu))
    argument.fail("dtype f32, bf16, f16 or (on cpu) f64", describe(tensor));
  check_matrix(argument, tensor, tensor.dim(0), tensor.dim(1));
}

void check_quantized(Argument argument, const QuantizedWeight& weight, int64_t rows, int64_t columns) {
  if (!weight.defined()) argument.fail(text(rows, columns), "an undefined weight");
  if (weight.rows() != rows || weight.columns() != columns)
    argument.fail(text(rows, columns), "quantised " + text(weight.rows(), weight.columns()));
  if (weight.device() != argument.device)
    argument.fail("a weight on " + to_string(argument.device), "a quantised one on " + to_string(weight.device()));
}

void check_weight(Argument argument, WeightView weight, int64_t rows, int64_t columns, DType dtype) {
  if (weight.dense) {
    check_matrix(argument, *weight.dense, rows, columns);
    return check_dtype(argument, *weight.dense, dtype);
  }
  if (weight.quantized) return check_quantized(argument, *weight.quantized, rows, columns);
  const PackedWeight& packed = *weight.packed;
  if (!packed.defined()) argument.fail(text(rows, columns), "an undefined weight");
  const std::string found = std::string(name_of(packed.dtype())) + text(packed.rows(), packed.columns()) + " packed";
  if (packed.rows() != rows || packed.columns() != columns) argument.fail(text(rows, columns), found);
  if (packed.dtype() != dtype) argument.fail("dtype " + std::string(name_of(dtype)), found);
  if (packed.device() != argument.device)
    argument.fail("a weight on " + to_string(argument.device), found + " for " + to_string(packed.device()));
}

Device device_of(const Tensor& tensor) { return tensor.defined() ? tensor.device() : Device{}; }

// The two LoRA operands come together: left [rows, r], right [n, r] or [r, n].
void check_lora(Argument left_argument, const Tensor& left, Argument right_argument, const Tensor& right, int64_t rows,
                int64_t n, bool right_is_plain, DType dtype) {
  if (!left.defined() && !right.defined()) return;
  check_operand(left_argument, left);
  const int64_t rank = left.dim(1);
  check_matrix(left_argument, left, rows, rank);
  check_dtype(left_argument, left, dtype);
  check_matrix(right_argument, right, right_is_plain ? rank : n, right_is_plain ? n : rank);
  check_dtype(right_argument, right, dtype);
}

Element element_of(const Tensor& tensor) { return tensor.dtype() == DType::bf16 ? Element::bf16 : Element::f32; }

gemm::Matrix matrix_of(const Tensor& tensor) {
  if (!tensor.defined()) return {nullptr, 0, Element::f32};
  return {tensor.raw(), tensor.rank() == 2 ? tensor.stride(0) : 0, element_of(tensor)};
}
gemm::Left left_of(const Tensor& tensor) {
  return {tensor.defined() ? tensor.raw() : nullptr, tensor.defined() ? tensor.stride(0) : 0, false};
}
gemm::Right right_of(const Tensor& tensor, gemm::RightLayout layout) {
  return {tensor.defined() ? tensor.raw() : nullptr, tensor.defined() ? tensor.stride(0) : 0, layout};
}
gemm::Right right_of(WeightView weight, gemm::RightLayout packed_layout, gemm::RightLayout dense_layout) {
  if (weight.dense) return right_of(*weight.dense, dense_layout);
  if (weight.quantized) {
    const QuantizedWeight& quantized = *weight.quantized;
    const bool transposed = packed_layout == gemm::RightLayout::panels_transposed;
    return {quantized.panels().raw(), quantized.panels().dim(1),
            transposed ? gemm::RightLayout::quantized_transposed : gemm::RightLayout::quantized, quantized.format(),
            quantized.group()};
  }
  const Element element = weight.dtype() == DType::bf16 ? Element::bf16 : Element::f32;
  return {weight.packed->panels().raw(), gemm::units_of(weight.columns(), element), packed_layout};
}

// A dense weight of the operand's dtype, for one product, where no body reads the codes.
bool on_cpu_without_codes(WeightView weight, const Tensor& operand) {
  return weight.quantized && operand.device().kind == DeviceKind::cpu &&
         (operand.dtype() == DType::f16 || operand.dtype() == DType::f64);
}
bool forward_wants_dense(WeightView weight, const Tensor& x) {
  if (!weight.quantized || x.device().kind == DeviceKind::cpu) return on_cpu_without_codes(weight, x);
  return !device::multiplies_codes(x, *weight.quantized);
}
bool gradient_wants_dense(WeightView weight, const Tensor& grad_out) {
  return on_cpu_without_codes(weight, grad_out) || (weight.quantized && grad_out.device().kind != DeviceKind::cpu);
}

Tensor dequantized(WeightView weight, const Tensor& operand) {
  const Tensor dense =
      Tensor::empty({weight.rows(), weight.columns()}, operand.dtype(), operand.device(), MemoryTag::workspace);
  weight.quantized->dequantize(dense);
  return dense;
}

void check_linear(const char* op, const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms) {
  const Device device = device_of(x);
  check_operand({op, "x", device}, x);
  const int64_t m = x.dim(0), n = weight.rows(), k = x.dim(1);
  check_weight({op, "weight", device}, weight, n, k, x.dtype());
  check_matrix({op, "out", device}, out, m, n);
  check_dtype_or_f32({op, "out", device}, out, x.dtype());
  check_lora({op, "lora_t", device}, terms.lora_t, {op, "lora_b", device}, terms.lora_b, m, n, false, x.dtype());
  if (terms.bias.defined()) {
    if (terms.bias.rank() != 1 || terms.bias.dim(0) != n)
      Argument{op, "bias", device}.fail(to_string(Shape{n}), describe(terms.bias));
    if (!terms.bias.is_contiguous())
      Argument{op, "bias", device}.fail("contiguous elements", describe(terms.bias) + " with strides");
    check_dtype_or_f32({op, "bias", device}, terms.bias, x.dtype());
  }
  if (terms.residual.defined()) {
    check_matrix({op, "residual", device}, terms.residual, m, n);
    check_dtype_or_f32({op, "residual", device}, terms.residual, x.dtype());
  }
}

}  // namespace

void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms) {
  const Device device = device_of(x);
  check_linear("linear_forward", out, x, weight, terms);
  const int64_t m = x.dim(0), n = weight.rows(), k = x.dim(1);
  if (forward_wants_dense(weight, x)) return linear_forward(out, x, dequantized(weight, x), terms);
  if (device.kind != DeviceKind::cpu) return device::linear_forward(out, x, weight, terms);
  if (x.dtype() == DType::f16) return widened::linear_forward(out, x, weight, terms);
  if (x.dtype() == DType::f64) return reference::linear_forward(out, x, weight, terms);

  gemm::Problem problem{};
  problem.m = m, problem.n = n, problem.k = k;
  problem.element = element_of(x);
  problem.left = left_of(x);
  problem.right = right_of(weight, gemm::RightLayout::panels, gemm::RightLayout::rows);
  problem.k2 = terms.lora_t.defined() ? terms.lora_t.dim(1) : 0;
  problem.left2 = left_of(terms.lora_t);
  problem.right2 = right_of(terms.lora_b, gemm::RightLayout::rows);
  problem.scale = 1.0f;
  problem.bias = matrix_of(terms.bias);
  problem.residual = matrix_of(terms.residual);
  problem.out = matrix_of(out);
  gemm::run(problem);
}

void quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms) {
  constexpr const char* op = "quantized_gemv";
  check_linear(op, out, x, weight, terms);
  if (x.dim(0) > most_gemv_rows) Argument{op, "x", x.device()}.fail("at most 4 rows", describe(x));
  if (x.device().kind == DeviceKind::cpu) return linear_forward(out, x, weight, terms);
  const bool aligned = reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0 && x.stride(0) % 8 == 0;
  if (!device::multiplies_codes(x, weight) || !aligned)
    Argument{op, "x", x.device()}.fail("bf16 or f16 with rows at multiples of 16 bytes, and blocks of 64 along it",
                                       describe(x));
  device::quantized_gemv(out, x, weight, terms);
}

void linear_input_gradient(const Tensor& grad_x, const Tensor& grad_out, WeightView weight, const Tensor& lora_dt,
                           const Tensor& lora_a, bool accumulate) {
  constexpr const char* op = "linear_input_gradient";
  const Device device = device_of(grad_out);
  check_operand({op, "grad_out", device}, grad_out);
  const int64_t m = grad_out.dim(0), n = grad_out.dim(1), k = weight.columns();
  check_weight({op, "weight", device}, weight, n, k, grad_out.dtype());
  check_matrix({op, "grad_x", device}, grad_x, m, k);
  check_dtype_or_f32({op, "grad_x", device}, grad_x, grad_out.dtype());
  check_lora({op, "lora_dt", device}, lora_dt, {op, "lora_a", device}, lora_a, m, k, true, grad_out.dtype());
  if (gradient_wants_dense(weight, grad_out))
    return linear_input_gradient(grad_x, grad_out, dequantized(weight, grad_out), lora_dt, lora_a, accumulate);
  if (device.kind != DeviceKind::cpu)
    return device::linear_input_gradient(grad_x, grad_out, weight, lora_dt, lora_a, accumulate);
  if (grad_out.dtype() == DType::f16)
    return widened::linear_input_gradient(grad_x, grad_out, weight, lora_dt, lora_a, accumulate);
  if (grad_out.dtype() == DType::f64)
    return reference::linear_input_gradient(grad_x, grad_out, weight, lora_dt, lora_a, accumulate);

  gemm::Problem problem{};
  problem.m = m, problem.n = k, problem.k = n;
  problem.element = element_of(grad_out);
  problem.left = left_of(grad_out);
  problem.right = right_of(weight, gemm::RightLayout::panels_transposed, gemm::RightLayout::plain);
  problem.k2 = lora_dt.defined() ? lora_dt.dim(1) : 0;
  problem.left2 = left_of(lora_dt);
  problem.right2 = right_of(lora_a, gemm::RightLayout::plain);
  problem.scale = 1.0f;
  problem.out = matrix_of(grad_x);
  if (accumulate) problem.residual = problem.out;
  gemm::run(problem);
}

void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale) {
  constexpr const char* op = "linear_weight_gradient";
  const Device device = device_of(grad_out);
  check_operand({op, "grad_out", device}, grad_out);
  check_operand({op, "x", device}, x);
  const int64_t tokens = x.dim(0), n = grad_out.dim(1), k = x.dim(1);
  check_matrix({op, "grad_out", device}, grad_out, tokens, n);
  check_dtype({op, "grad_out", device}, grad_out, x.dtype());
  check_matrix({op, "grad_weight", device}, grad_weight, n, k);
  check_dtype({op, "grad_weight", device}, grad_weight, x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  if (!cu_seqlens.defined() || cu_seqlens.rank() != 1 || cu_seqlens.numel() == 0 || cu_seqlens.dtype() != DType::i32)
    Argument{op, "cu_seqlens", device}.fail("i32[S + 1]",
                                            cu_seqlens.defined() ? describe(cu_seqlens) : "an undefined tensor");
  const int32_t* bounds = cu_seqlens.data<int32_t>();
  const int64_t sequences = cu_seqlens.numel() - 1;
  for (int64_t s = 0; s <= sequences; ++s)
    if ((s == 0 && bounds[s] != 0) || (s > 0 && bounds[s] < bounds[s - 1]) || (s == sequences && bounds[s] != tokens))
      Argument{op, "cu_seqlens", device}.fail("bounds that ascend from 0 to " + std::to_string(tokens),
                                              std::to_string(bounds[s]) + " at " + std::to_string(s));
  if (device.kind != DeviceKind::cpu)
    return device::linear_weight_gradient(grad_weight, grad_out, x, cu_seqlens, scale);
  if (x.dtype() == DType::f16) return widened::linear_weight_gradient(grad_weight, grad_out, x, cu_seqlens, scale);
  if (x.dtype() == DType::f64) return reference::linear_weight_gradient(grad_weight, grad_out, x, cu_seqlens, scale);

  for (int64_t s = 0; s < sequences; ++s) {
    if (bounds[s] == bounds[s + 1]) continue;
    gemm::Problem problem{};
    problem.m = n, problem.n = k, problem.k = bounds[s + 1] - bounds[s];
    problem.element = element_of(x);
    problem.left = left_of(grad_out.slice(0, bounds[s], bounds[s + 1]));
    problem.left.transposed = true;
    problem.right = right_of(x.slice(0, bounds[s], bounds[s + 1]), gemm::RightLayout::plain);
    problem.scale = scale;
    problem.residual = problem.out = matrix_of(grad_weight);
    gemm::run(problem);
  }
}

void matmul(const Tensor& out, const Tensor& a, const Tensor& b, Layout b_layout, float scale) {
  constexpr const char* op = "matmul";
  const Device device = device_of(a);
  check_operand({op, "a", device}, a);
  check_operand({op, "b", device}, b);
  const bool transposed = b_layout == Layout::transposed;
  const int64_t m = a.dim(0), k = a.dim(1), n = b.dim(transposed ? 0 : 1);
  check_matrix({op, "b", device}, b, transposed ? n : k, transposed ? k : n);
  check_dtype({op, "b", device}, b, a.dtype());
  check_matrix({op, "out", device}, out, m, n);
  check_dtype_or_f32({op, "out", device}, out, a.dtype());
  if (device.kind != DeviceKind::cpu) return device::matmul(out, a, b, b_layout, scale);
  if (a.dtype() == DType::f16) return widened::matmul(out, a, b, b_layout, scale);
  if (a.dtype() == DType::f64) return reference::matmul(out, a, b, b_layout, scale);

  gemm::Problem problem{};
  problem.m = m, problem.n = n, problem.k = k;
  problem.element = element_of(a);
  problem.left = left_of(a);
  problem.right = right_of(b, transposed ? gemm::RightLayout::rows : gemm::RightLayout::plain);
  problem.scale = scale;
  problem.out = matrix_of(out);
  gemm::run(problem);
}

}  // namespace lathe::kernels
