#include "kernels/matmul/operands.h"

namespace lathe::kernels {

ProductMatrix product_matrix(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.raw(), tensor.rank() == 2 ? tensor.stride(0) : 0, tensor.dtype()};
}

ProductMatrix product_matrix(const Weight& weight) {
  if (const PackedWeight* packed = weight.packed()) return product_matrix(packed->dense());
  return product_matrix(*weight.dense());
}

void set_right(ProductArgs& args, const Weight& weight) {
  const bool cpu = weight.device().kind == DeviceKind::cpu;
  if (const Tensor* dense = weight.dense()) args.right = product_matrix(*dense);
  if (const PackedWeight* packed = weight.packed())
    cpu ? void(args.panels = packed->product_panels()) : void(args.right = product_matrix(packed->dense()));
  if (const QuantizedWeight* quantized = weight.quantized(); quantized && cpu)
    args.panels = quantized->product_panels();
}

ProductArgs forward_args(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms) {
  ProductArgs args{.layout = ProductLayout::rows_rows, .dtype = x.dtype()};
  args.m = x.dim(0), args.n = out.dim(1), args.k = x.dim(1);
  args.left = product_matrix(x);
  set_right(args, weight);
  args.right_at_rest = weight.packed() != nullptr;
  args.k2 = terms.lora_t.defined() ? terms.lora_t.dim(1) : 0;
  args.left2 = product_matrix(terms.lora_t);
  if (x.device().kind != DeviceKind::cpu || terms.lora_b.dense()) args.right2 = product_matrix(terms.lora_b);
  args.bias = product_matrix(terms.bias);
  args.residual = product_matrix(terms.residual);
  args.out = product_matrix(out);
  return args;
}

}  // namespace lathe::kernels
