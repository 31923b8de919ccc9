#include "kernels/matmul/products.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/checks.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/operands.h"
#include "kernels/matmul/schedule.h"
#include "kernels/matmul/weights/ggml/device.h"
#include "kernels/matmul/weights/ggml/product.h"

namespace lathe::kernels {
namespace {

bool has_lora(const LinearTerms& terms) { return terms.lora_t.defined() || !terms.lora_rows.empty(); }
bool is_bare(const LinearTerms& terms) {
  return !has_lora(terms) && !terms.bias.defined() && !terms.residual.defined();
}

bool multiplies_blocks(const Tensor& x, const LinearProduct& product) {
  return product.weight.ggml() && x.device().kind == DeviceKind::cpu &&
         (x.dtype() == DType::f32 || x.dtype() == DType::bf16) && !has_lora(product.terms);
}

GgmlProduct in_blocks(const LinearProduct& product) {
  return {product.out, *product.weight.ggml(), {}, product.terms.bias, product.terms.residual};
}

// Whether a device has a body for so many rows by this dense weight beside others.
bool joins_on_device(const Tensor& x, const LinearProduct& product) {
  return x.device().kind != DeviceKind::cpu && x.dtype() != DType::f32 && x.dim(0) > 0 && x.dim(0) <= few_rows_most &&
         x.dim(1) > 0 && (product.weight.dense() || product.weight.packed()) && !has_lora(product.terms) &&
         !product.terms.residual.defined();
}

// The same for a weight in codes. `first`: whose format it shares.
bool joins_in_codes(const Tensor& x, const LinearProduct& product, const LinearProduct& first) {
  const QuantizedWeight *codes = product.weight.quantized(), *of_first = first.weight.quantized();
  return x.device().kind != DeviceKind::cpu && x.dtype() != DType::f32 && x.dim(0) > 0 && codes && of_first &&
         codes->format() == of_first->format() && device::multiplies_codes(x, *codes) &&
         product.terms.lora_rows.empty();
}

// The same for one in ggml's blocks, whatever its format.
bool joins_in_blocks(const Tensor& x, const LinearProduct& product) {
  const GgmlWeight* blocks = product.weight.ggml();
  return blocks && device::multiplies_blocks(x, *blocks) && product.terms.lora_rows.empty();
}

device::BlocksProduct blocks_product(const Tensor& x, const LinearProduct& product) {
  return {forward_args(product.out, x, product.weight, product.terms), product.weight.ggml()};
}

device::CodesProduct codes_product(const Tensor& x, const LinearProduct& product) {
  return {forward_args(product.out, x, product.weight, product.terms), product.weight.quantized()};
}

void multiply_blocks_on_device(const Tensor& x, std::span<const LinearProduct> products) {
  std::vector<device::BlocksProduct> each;
  for (const LinearProduct& product : products) each.push_back(blocks_product(x, product));
  device::multiply_blocks(each, x.device());
}

// On the CPU, by a packed weight: one parallel region. For a token, fewer regions to enter and leave; for many rows, x
// is packed once.
bool joins_on_cpu(const Tensor& x, const LinearProduct& product) {
  return x.device().kind == DeviceKind::cpu && (x.dtype() == DType::f32 || x.dtype() == DType::bf16) && x.dim(0) > 0 &&
         product.out.dim(1) > 0 && product.weight.packed() && !has_lora(product.terms) &&
         is_one_pass(x.dim(1), x.dtype());
}

void multiply_codes(const Tensor& x, std::span<const LinearProduct> products) {
  std::vector<device::CodesProduct> each;
  for (const LinearProduct& product : products) each.push_back(codes_product(x, product));
  device::multiply_codes(each, x.device());
}

// Rows up to which entering and leaving a parallel region shows beside a product by a packed weight.
constexpr int64_t grouped_rows_most = 64;

bool groups_packed(const GroupedProduct& each) {
  return joins_on_cpu(each.x, each.product) && each.x.dim(0) <= grouped_rows_most;
}
bool groups_blocks(const GroupedProduct& each) {
  return multiplies_blocks(each.x, each.product) && each.x.dim(0) > 0 && each.product.out.dim(1) > 0 &&
         ggml_groups(each.x.dim(0));
}

void multiply_together(const Tensor& x, std::span<const LinearProduct> products) {
  std::vector<ProductArgs> each;
  for (const LinearProduct& product : products)
    each.push_back(forward_args(product.out, x, product.weight, product.terms));
  multiply_joined_on_cpu(each);
}

void multiply_joined(const Tensor& x, std::span<const LinearProduct> products) {
  JoinedProductArgs args{.dtype = x.dtype(), .m = x.dim(0), .k = x.dim(1), .left = product_matrix(x)};
  for (const LinearProduct& each : products)
    args.parts[args.count++] = {.n = each.out.dim(1),
                                .right = product_matrix(each.weight),
                                .bias = product_matrix(each.terms.bias),
                                .out = product_matrix(each.out)};
  args.right_at_rest = std::ranges::all_of(products, [](const LinearProduct& each) { return each.weight.packed(); });
  with_device(x.device(), [&]<DeviceKind kind>() { joined_products<kind>(args); });
}

void multiply_gated(const Tensor& out, const Tensor& x, const Weight& gate, const Weight& up, Activation activation) {
  const GatedProductArgs args{.activation = activation,
                              .dtype = x.dtype(),
                              .m = x.dim(0),
                              .n = out.dim(1),
                              .k = x.dim(1),
                              .left = product_matrix(x),
                              .gate = product_matrix(gate),
                              .up = product_matrix(up),
                              .out = product_matrix(out),
                              .right_at_rest = gate.packed() && up.packed()};
  with_device(x.device(), [&]<DeviceKind kind>() { gated_products<kind>(args); });
}

}  // namespace

void linear_forward_each(const Tensor& x, std::span<const LinearProduct> products) {
  for (const LinearProduct& product : products)
    check_linear_forward("linear_forward_each", product.out, x, product.weight, product.terms);
  const auto all = [&](auto which) {
    return std::ranges::all_of(products, [&](const LinearProduct& product) { return which(x, product); });
  };
  if (products.size() > 1 && std::ssize(products) <= joined_most && all(joins_on_device))
    return multiply_joined(x, products);
  const auto in_codes = [&](const Tensor& of, const LinearProduct& product) {
    return joins_in_codes(of, product, products[0]);
  };
  if (products.size() > 1 && std::ssize(products) <= joined_most && all(in_codes)) return multiply_codes(x, products);
  if (!products.empty() && all(joins_in_blocks)) return multiply_blocks_on_device(x, products);
  if (!all(multiplies_blocks)) {
    if (products.size() > 1 && all(joins_on_cpu)) return multiply_together(x, products);
    for (const LinearProduct& product : products) linear_forward(product.out, x, product.weight, product.terms);
    return;
  }
  std::vector<GgmlProduct> blocks;
  for (const LinearProduct& product : products) blocks.push_back(in_blocks(product));
  ggml_linear_forward(x, blocks);
}

void linear_forward_grouped(std::span<const GroupedProduct> products) {
  for (const auto& [x, product] : products)
    check_linear_forward("linear_forward_grouped", product.out, x, product.weight, product.terms);
  std::vector<ProductArgs> packed;
  std::vector<GgmlGroupedProduct> blocks;
  std::vector<LinearProduct> of_one;  // what is not grouped, of one x
  for (size_t i = 0; i < products.size(); ++i) {
    const auto& [x, product] = products[i];
    if (groups_packed(products[i])) {
      packed.push_back(forward_args(product.out, x, product.weight, product.terms));
    } else if (groups_blocks(products[i])) {
      blocks.push_back({x, in_blocks(product)});
    } else {
      of_one.push_back(product);
      if (i + 1 < products.size() && same_rows(products[i + 1].x, x)) continue;
    }
    if (!of_one.empty()) linear_forward_each(x, std::exchange(of_one, {}));
  }
  if (!packed.empty()) multiply_grouped_on_cpu(packed);
  if (!blocks.empty()) ggml_linear_forward_grouped(blocks);
}

void gated_linear_forward(const Tensor& out, const Tensor& x, const LinearProduct& gate, const LinearProduct& up,
                          Activation activation) {
  constexpr const char* operation = "gated_linear_forward";
  check_linear_forward(operation, gate.out, x, gate.weight, gate.terms);
  check_linear_forward(operation, up.out, x, up.weight, up.terms);
  for (const auto& [name, tensor] : {std::pair("up", &up.out), std::pair("out", &out)})
    expect(operation, name, *tensor)
        .shape(gate.out.shape())
        .dtype(gate.out.dtype())
        .rows_contiguous()
        .device(x.device());
  const bool bare = is_bare(gate.terms) && is_bare(up.terms) && out.dtype() == x.dtype();
  const GatedResult result{activation, product_matrix(out)};
  if (bare && joins_on_device(x, gate) && joins_on_device(x, up))
    return multiply_gated(out, x, gate.weight, up.weight, activation);
  if (bare && joins_in_codes(x, gate, gate) && joins_in_codes(x, up, gate))
    return device::multiply_gated_codes(codes_product(x, gate), codes_product(x, up), result, x.device());
  if (bare && x.dtype() != DType::f32 && x.dim(0) > 0 && joins_in_blocks(x, gate) && joins_in_blocks(x, up) &&
      gate.weight.ggml()->format() == up.weight.ggml()->format())
    return device::multiply_gated_blocks(blocks_product(x, gate), blocks_product(x, up), result, x.device());
  if (multiplies_blocks(x, gate) && multiplies_blocks(x, up))
    return ggml_gated_linear_forward(out, x, in_blocks(gate), in_blocks(up), activation);
  const LinearProduct both[] = {gate, up};
  linear_forward_each(x, both);
  activation == Activation::silu ? swiglu_forward(out, gate.out, up.out) : geglu_forward(out, gate.out, up.out);
}

}  // namespace lathe::kernels
