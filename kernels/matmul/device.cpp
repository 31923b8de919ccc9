#include "kernels/matmul/device.h"

#include "kernels/matmul/cuda/product.h"
#include "kernels/matmul/cuda/quantized.h"
#include "kernels/nf4/scale.h"

namespace lathe::kernels::device {
namespace {

MatrixCuda matrix(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.raw(), tensor.rank() == 2 ? tensor.stride(0) : 0, tensor.dtype()};
}

MatrixCuda matrix(WeightView weight) { return matrix(weight.packed ? weight.packed->dense() : *weight.dense); }

void run(const ProductCuda& product, Device device) {
  if (product.m == 0 || product.n == 0) return;
  product.dtype == DType::f32 ? product_tiles_f32(product, device) : product_tiles(product, device);
}

ProductCuda forward_product(const Tensor& out, const Tensor& x, const LinearTerms& terms) {
  ProductCuda product{.layout = ProductLayout::rows_rows, .dtype = x.dtype()};
  product.m = x.dim(0), product.n = out.dim(1), product.k = x.dim(1);
  product.left = matrix(x);
  product.k2 = terms.lora_t.defined() ? terms.lora_t.dim(1) : 0;
  product.left2 = matrix(terms.lora_t);
  product.right2 = matrix(terms.lora_b);
  product.bias = matrix(terms.bias);
  product.residual = matrix(terms.residual);
  product.out = matrix(out);
  return product;
}

QuantizedProductCuda with_codes(const ProductCuda& product, const QuantizedWeight& weight) {
  QuantizedProductCuda args{.product = product, .format = weight.format()};
  if (weight.format() == QuantizedFormat::nf4) {
    args.codes = weight.nf4().codes.raw();
    args.nf4_scales = nf4_scale_args(weight.nf4());
    args.block_size = weight.nf4().block_size;
  } else {
    args.codes = weight.int8().codes.raw();
    args.int8_scales = weight.int8().scales.data<float>();
  }
  return args;
}

}  // namespace

bool multiplies_codes(const Tensor& x, const QuantizedWeight& weight) {
  const void* codes = weight.format() == QuantizedFormat::nf4 ? weight.nf4().codes.raw() : weight.int8().codes.raw();
  return x.dim(0) <= most_fused_rows && x.dtype() != DType::f32 && weight.group() == 64 &&
         reinterpret_cast<uintptr_t>(codes) % 16 == 0;
}

void linear_forward(const Tensor& out, const Tensor& x, WeightView weight, const LinearTerms& terms) {
  ProductCuda product = forward_product(out, x, terms);
  if (product.m == 0 || product.n == 0) return;
  if (weight.quantized) return quantized_product_tiles(with_codes(product, *weight.quantized), x.device());
  product.right = matrix(weight);
  run(product, x.device());
}

void quantized_gemv(const Tensor& out, const Tensor& x, const QuantizedWeight& weight, const LinearTerms& terms) {
  const ProductCuda product = forward_product(out, x, terms);
  if (product.m == 0 || product.n == 0) return;
  quantized_gemv_columns(with_codes(product, weight), x.device());
}

void linear_input_gradient(const Tensor& grad_x, const Tensor& grad_out, WeightView weight, const Tensor& lora_dt,
                           const Tensor& lora_a, bool accumulate) {
  ProductCuda product{.layout = ProductLayout::rows_plain, .dtype = grad_out.dtype()};
  product.m = grad_out.dim(0), product.n = weight.columns(), product.k = grad_out.dim(1);
  product.left = matrix(grad_out);
  product.right = matrix(weight);
  product.k2 = lora_dt.defined() ? lora_dt.dim(1) : 0;
  product.left2 = matrix(lora_dt);
  product.right2 = matrix(lora_a);
  product.out = matrix(grad_x);
  if (accumulate) product.residual = product.out;
  run(product, grad_out.device());
}

void linear_weight_gradient(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& x,
                            const Tensor& cu_seqlens, float scale) {
  ProductCuda product{.layout = ProductLayout::columns_plain, .dtype = x.dtype()};
  product.m = grad_out.dim(1), product.n = x.dim(1), product.k = x.dim(0);
  product.left = matrix(grad_out);
  product.right = matrix(x);
  product.scale = scale;
  product.residual = product.out = matrix(grad_weight);
  product.cu_seqlens = cu_seqlens.data<int32_t>();
  product.sequences = cu_seqlens.numel() - 1;
  run(product, x.device());
}

void matmul(const Tensor& out, const Tensor& a, const Tensor& b, Layout b_layout, float scale) {
  const bool transposed = b_layout == Layout::transposed;
  ProductCuda product{.layout = transposed ? ProductLayout::rows_rows : ProductLayout::rows_plain, .dtype = a.dtype()};
  product.m = a.dim(0), product.n = b.dim(transposed ? 0 : 1), product.k = a.dim(1);
  product.left = matrix(a);
  product.right = matrix(b);
  product.scale = scale;
  product.out = matrix(out);
  run(product, a.device());
}

}  // namespace lathe::kernels::device
