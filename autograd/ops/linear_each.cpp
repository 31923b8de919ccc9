#include "autograd/ops/linear_each.h"

#include "autograd/operation.h"
#include "kernels/matmul/products.h"

namespace lathe::autograd {
namespace {

// What these products are timed as.
struct Unrecorded final : Operation {
  std::string_view timed_as;
  explicit Unrecorded(std::string_view name) : timed_as(name) {}
  std::string_view name() const override { return timed_as; }
  void vjp(Saved&, std::span<Tensor>, InputGradients&) override {}
};

kernels::LinearProduct product_of(const Tensor& x, const UnrecordedLinear& linear) {
  return {Tensor::empty({x.dim(0), linear.weight.rows()}, x.dtype(), x.device()),
          linear.weight.value(),
          {.lora_t = {}, .lora_b = {}, .bias = linear.bias, .residual = linear.residual}};
}

}  // namespace

std::vector<Variable> linear_each(const Variable& x, const std::vector<UnrecordedLinear>& linears) {
  const Unrecorded operation("linear");
  const OperationTimer timer(operation, Direction::forward);
  std::vector<kernels::LinearProduct> products;
  products.reserve(linears.size());
  for (const UnrecordedLinear& linear : linears) products.push_back(product_of(x.value(), linear));
  kernels::linear_forward_each(x.value(), products);
  std::vector<Variable> outs;
  outs.reserve(products.size());
  for (kernels::LinearProduct& product : products) outs.emplace_back(std::move(product.out));
  return outs;
}

Variable gated_linear(const Variable& x, const UnrecordedLinear& gate, const UnrecordedLinear& up,
                      kernels::Activation activation) {
  const Unrecorded operation("gated_linear");
  const OperationTimer timer(operation, Direction::forward);
  const kernels::LinearProduct gate_product = product_of(x.value(), gate), up_product = product_of(x.value(), up);
  // In gate's memory, which nobody else sees.
  kernels::gated_linear_forward(gate_product.out, x.value(), gate_product, up_product, activation);
  return Variable(gate_product.out);
}

}  // namespace lathe::autograd
