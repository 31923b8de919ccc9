#include "kernels/matmul/joined.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/checks.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/operands.h"

namespace lathe::kernels {
namespace {

// Whether a device has a body for so many rows; weights in codes have theirs.
bool few_rows_on_device(const Tensor& x) {
  return x.device().kind != DeviceKind::cpu && x.dtype() != DType::f32 && x.dim(0) > 0 && x.dim(0) <= few_rows_most &&
         x.dim(1) > 0;
}
bool is_matrix(const Weight& weight) { return weight.dense() || weight.packed(); }

}  // namespace

void joined_linear_forward(const Tensor& x, std::span<const JoinedProduct> products) {
  const bool at_once = few_rows_on_device(x) && products.size() > 1 &&
                       products.size() <= static_cast<size_t>(joined_most) &&
                       std::ranges::all_of(products, [](const JoinedProduct& each) { return is_matrix(each.weight); });
  if (!at_once) {
    for (const JoinedProduct& each : products) linear_forward(each.out, x, each.weight, {.bias = each.bias});
    return;
  }
  JoinedProductArgs args{.dtype = x.dtype(), .m = x.dim(0), .k = x.dim(1), .left = product_matrix(x)};
  for (const JoinedProduct& each : products) {
    check_linear_forward("joined_linear_forward", each.out, x, each.weight, {.bias = each.bias});
    args.parts[args.count++] = {.n = each.out.dim(1),
                                .right = product_matrix(each.weight),
                                .bias = product_matrix(each.bias),
                                .out = product_matrix(each.out)};
  }
  with_device(x.device(), [&]<DeviceKind kind>() { joined_products<kind>(args); });
}

void gated_linear_forward(const Tensor& out, const Tensor& x, const Weight& gate, const Weight& up,
                          Activation activation) {
  if (few_rows_on_device(x) && is_matrix(gate) && is_matrix(up) && out.dtype() == x.dtype()) {
    check_linear_forward("gated_linear_forward", out, x, gate, {});
    check_linear_forward("gated_linear_forward", out, x, up, {});
    const GatedProductArgs args{.activation = activation,
                                .dtype = x.dtype(),
                                .m = x.dim(0),
                                .n = out.dim(1),
                                .k = x.dim(1),
                                .left = product_matrix(x),
                                .gate = product_matrix(gate),
                                .up = product_matrix(up),
                                .out = product_matrix(out)};
    return with_device(x.device(), [&]<DeviceKind kind>() { gated_products<kind>(args); });
  }
  const auto room = [&](const Weight& weight) {
    return Tensor::empty({x.dim(0), weight.rows()}, x.dtype(), x.device(), MemoryTag::workspace);
  };
  const Tensor opened = room(gate), raised = room(up);
  joined_linear_forward(x, std::vector<JoinedProduct>{{opened, gate}, {raised, up}});
  activation == Activation::silu ? swiglu_forward(out, opened, raised) : geglu_forward(out, opened, raised);
}

}  // namespace lathe::kernels
