#include "kernels/matmul/checks.h"

#include <string>

#include "core/error.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/quantized_gemv.h"

namespace lathe::kernels {
namespace {

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

void check_kind(Argument argument, const Tensor& dense, int64_t rows, int64_t columns, DType dtype) {
  check_matrix(argument, dense, rows, columns);
  check_dtype(argument, dense, dtype);
}

void check_kind(Argument argument, const PackedWeight& packed, int64_t rows, int64_t columns, DType dtype) {
  if (!packed.defined()) argument.fail(text(rows, columns), "an undefined weight");
  const auto found = [&] {
    return std::string(name_of(packed.dtype())) + text(packed.rows(), packed.columns()) + " packed";
  };
  if (packed.rows() != rows || packed.columns() != columns) argument.fail(text(rows, columns), found());
  if (packed.dtype() != dtype) argument.fail("dtype " + std::string(name_of(dtype)), found());
  if (packed.device() != argument.device)
    argument.fail("a weight on " + to_string(argument.device), found() + " for " + to_string(packed.device()));
}

void check_kind(Argument argument, const QuantizedWeight& weight, int64_t rows, int64_t columns, DType) {
  if (!weight.defined()) argument.fail(text(rows, columns), "an undefined weight");
  if (weight.rows() != rows || weight.columns() != columns)
    argument.fail(text(rows, columns), "quantised " + text(weight.rows(), weight.columns()));
  if (weight.device() != argument.device)
    argument.fail("a weight on " + to_string(argument.device), "a quantised one on " + to_string(weight.device()));
}

void check_kind(Argument argument, const GgmlWeight& weight, int64_t rows, int64_t columns, DType dtype) {
  if (!weight.defined()) argument.fail(text(rows, columns), "an undefined weight");
  const auto found = [&] {
    return std::string(name_of(weight.format())) + " " + text(weight.rows(), weight.columns()) + " on " +
           to_string(weight.device());
  };
  if (weight.rows() != rows || weight.columns() != columns) argument.fail(text(rows, columns), found());
  if (weight.dtype() != dtype)
    argument.fail("a weight for " + std::string(name_of(dtype)),
                  found() + " for " + std::string(name_of(weight.dtype())));
  if (weight.device() != argument.device) argument.fail("a weight on " + to_string(argument.device), found());
}

void check_weight(Argument argument, const Weight& weight, int64_t rows, int64_t columns, DType dtype) {
  weight.visit([&](const auto& kind) { check_kind(argument, kind, rows, columns, dtype); });
}

Device device_of(const Tensor& tensor) { return tensor.defined() ? tensor.device() : Device{}; }

// A LoRA term's operands come together: left [rows, r], right [n, r] or, plain, [r, n].
void check_lora(Argument left_argument, const Tensor& left, Argument right_argument, const Weight& right, int64_t rows,
                int64_t n, bool right_is_plain, DType dtype) {
  if (!left.defined() && !right.defined()) return;
  check_operand(left_argument, left);
  const int64_t rank = left.dim(1);
  check_matrix(left_argument, left, rows, rank);
  check_dtype(left_argument, left, dtype);
  if (right.quantized()) right_argument.fail("a dense or packed matrix", "a quantised one");
  check_weight(right_argument, right, right_is_plain ? rank : n, right_is_plain ? n : rank, dtype);
}

// Ascending rows of m, each with both operands, beside no pair for all rows.
void check_lora_rows(const char* op, Device device, const LinearTerms& terms, int64_t m, int64_t n, DType dtype) {
  int64_t done = 0;
  for (const LoraRows& lora : terms.lora_rows) {
    const auto found = [&] { return "rows from " + std::to_string(lora.begin) + " to " + std::to_string(lora.end); };
    if (lora.begin < done || lora.end < lora.begin || lora.end > m)
      Argument{op, "lora_rows", device}.fail(
          "ascending rows from " + std::to_string(done) + " to " + std::to_string(m) + " at most", found());
    if (!lora.t.defined()) Argument{op, "lora_rows", device}.fail("a term", found() + " without one");
    check_lora({op, "lora_rows' t", device}, lora.t, {op, "lora_rows' b", device}, lora.b, lora.end - lora.begin, n,
               false, dtype);
    done = lora.end;
  }
  if (done > 0 && terms.lora_t.defined())
    Argument{op, "lora_rows", device}.fail("none beside lora_t", std::to_string(terms.lora_rows.size()));
}

}  // namespace

void check_linear_forward(const char* op, const Tensor& out, const Tensor& x, const Weight& weight,
                          const LinearTerms& terms) {
  const Device device = device_of(x);
  check_operand({op, "x", device}, x);
  const int64_t m = x.dim(0), n = weight.rows(), k = x.dim(1);
  check_weight({op, "weight", device}, weight, n, k, x.dtype());
  check_matrix({op, "out", device}, out, m, n);
  check_dtype_or_f32({op, "out", device}, out, x.dtype());
  check_lora({op, "lora_t", device}, terms.lora_t, {op, "lora_b", device}, terms.lora_b, m, n, false, x.dtype());
  check_lora_rows(op, device, terms, m, n, x.dtype());
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

void check_quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms) {
  constexpr const char* op = "quantized_gemv";
  check_linear_forward(op, out, x, weight, terms);
  if (!terms.lora_rows.empty()) Argument{op, "lora_rows", x.device()}.fail("none", "some");
  if (x.dim(0) > most_gemv_rows) Argument{op, "x", x.device()}.fail("at most 4 rows", describe(x));
  if (x.device().kind == DeviceKind::cpu) return;
  const bool aligned = reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0 && x.stride(0) % 8 == 0;
  if (!device::multiplies_codes(x, weight) || !aligned)
    Argument{op, "x", x.device()}.fail("bf16 or f16 with rows at multiples of 16 bytes, and blocks of 64 along it",
                                       describe(x));
}

void check_linear_input_gradient(const LinearInputGradient& call) {
  constexpr const char* op = "linear_input_gradient";
  const auto& [grad_x, grad_out, weight, lora_dt, lora_a, accumulate] = call;
  const Device device = device_of(grad_out);
  check_operand({op, "grad_out", device}, grad_out);
  const int64_t m = grad_out.dim(0), n = grad_out.dim(1), k = weight.columns();
  check_weight({op, "weight", device}, weight, n, k, grad_out.dtype());
  check_matrix({op, "grad_x", device}, grad_x, m, k);
  check_dtype_or_f32({op, "grad_x", device}, grad_x, grad_out.dtype());
  check_lora({op, "lora_dt", device}, lora_dt, {op, "lora_a", device}, lora_a, m, k, true, grad_out.dtype());
}

void check_linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                                  const Tensor& cu_seqlens) {
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
}

void check_matmul(const Tensor& out, const Tensor& a, const Weight& b, Layout b_layout) {
  constexpr const char* op = "matmul";
  const Device device = device_of(a);
  check_operand({op, "a", device}, a);
  if (const Tensor* dense = b.dense()) check_operand({op, "b", device}, *dense);
  const bool transposed = b_layout == Layout::transposed;
  const int64_t m = a.dim(0), k = a.dim(1), n = transposed ? b.rows() : b.columns();
  if (b.quantized()) Argument{op, "b", device}.fail("a dense or packed weight", "a quantised one");
  check_weight({op, "b", device}, b, transposed ? n : k, transposed ? k : n, a.dtype());
  check_matrix({op, "out", device}, out, m, n);
  check_dtype_or_f32({op, "out", device}, out, a.dtype());
}

}  // namespace lathe::kernels
