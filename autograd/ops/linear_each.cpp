#include "autograd/ops/linear_each.h"

#include <utility>

#include "autograd/operation.h"
#include "kernels/matmul/lora_shrink.h"
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

kernels::LinearProduct product_into(Tensor out, const UnrecordedLinear& linear) {
  return {std::move(out),
          linear.weight.value(),
          {.lora_t = {}, .lora_b = {}, .bias = linear.bias, .residual = linear.residual}};
}
Tensor empty_product(const Tensor& x, const UnrecordedLinear& linear) {
  return Tensor::empty({x.dim(0), linear.weight.rows()}, x.dtype(), x.device());
}
kernels::LinearProduct product_of(const Tensor& x, const UnrecordedLinear& linear) {
  return product_into(empty_product(x, linear), linear);
}

// x·Aᵀ of all adapters of all linears at once, each with its B as a term of its product. In one piece of memory: by
// sixteen adapters a decode step has thousands of them.
void add_lora(const Tensor& x, std::span<const UnrecordedLinear> linears,
              std::vector<kernels::LinearProduct>& products) {
  int64_t count = 0, numbers = 0;
  for (const UnrecordedLinear& linear : linears)
    for (const UnrecordedLora& lora : linear.lora) ++count, numbers += (lora.end - lora.begin) * lora.a.rows();
  if (count == 0) return;
  const Tensor all = Tensor::empty({numbers}, x.dtype(), x.device());
  std::vector<kernels::LoraShrink> shrinks;
  shrinks.reserve(static_cast<size_t>(count));
  int64_t used = 0;
  for (size_t i = 0; i < linears.size(); ++i) {
    std::vector<kernels::LoraRows>& rows = products[i].terms.lora_rows;
    rows.reserve(linears[i].lora.size());
    for (const UnrecordedLora& lora : linears[i].lora) {
      const Shape shape{lora.end - lora.begin, lora.a.rows()};
      const Tensor t = all.slice(0, used, used + shape.numel()).view(shape);
      used += shape.numel();
      shrinks.push_back({t, x.slice(0, lora.begin, lora.end), lora.a, lora.scale});
      rows.push_back({lora.begin, lora.end, t, lora.b});
    }
  }
  kernels::lora_shrink(shrinks);
}

}  // namespace

std::vector<Variable> linear_each(const Variable& x, std::span<const UnrecordedLinear> linears) {
  const Unrecorded operation("linear");
  const OperationTimer timer(operation, Direction::forward);
  std::vector<kernels::LinearProduct> products;
  products.reserve(linears.size());
  for (const UnrecordedLinear& linear : linears) products.push_back(product_of(x.value(), linear));
  add_lora(x.value(), linears, products);
  kernels::linear_forward_each(x.value(), products);
  std::vector<Variable> outs;
  outs.reserve(products.size());
  for (kernels::LinearProduct& product : products) outs.emplace_back(std::move(product.out));
  return outs;
}

std::vector<Variable> linear_each_of_rows(const Variable& x, std::span<const RowsLinears> rows) {
  const Unrecorded operation("linear");
  const OperationTimer timer(operation, Direction::forward);
  std::vector<Tensor> outs;
  if (!rows.empty())
    for (const UnrecordedLinear& linear : rows[0].linears) outs.push_back(empty_product(x.value(), linear));
  std::vector<kernels::GroupedProduct> products;
  products.reserve(rows.size() * outs.size());
  for (const RowsLinears& own : rows) {
    const Tensor own_x = x.value().slice(0, own.begin, own.end);
    for (size_t i = 0; i < own.linears.size(); ++i)
      products.push_back({own_x, product_into(outs[i].slice(0, own.begin, own.end), own.linears[i])});
  }
  kernels::linear_forward_grouped(products);
  return {outs.begin(), outs.end()};
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
