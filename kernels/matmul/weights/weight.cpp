#include "kernels/matmul/weights/weight.h"

namespace lathe::kernels {
namespace {

int64_t rows_of(const Tensor& dense) { return dense.dim(0); }
int64_t columns_of(const Tensor& dense) { return dense.dim(1); }
DType dtype_of(const Tensor& dense) { return dense.dtype(); }

int64_t rows_of(const PackedWeight& packed) { return packed.rows(); }
int64_t columns_of(const PackedWeight& packed) { return packed.columns(); }
DType dtype_of(const PackedWeight& packed) { return packed.dtype(); }

int64_t rows_of(const QuantizedWeight& quantized) { return quantized.rows(); }
int64_t columns_of(const QuantizedWeight& quantized) { return quantized.columns(); }
DType dtype_of(const QuantizedWeight&) { return DType::f32; }

int64_t rows_of(const GgmlWeight& ggml) { return ggml.rows(); }
int64_t columns_of(const GgmlWeight& ggml) { return ggml.columns(); }
DType dtype_of(const GgmlWeight& ggml) { return ggml.dtype(); }

}  // namespace

const Weight::Kind Weight::undefined;

Weight::Weight(Tensor dense) : kind_(std::make_shared<const Kind>(std::move(dense))) {}
Weight::Weight(PackedWeight packed) : kind_(std::make_shared<const Kind>(std::move(packed))) {}
Weight::Weight(QuantizedWeight quantized) : kind_(std::make_shared<const Kind>(std::move(quantized))) {}
Weight::Weight(GgmlWeight ggml) : kind_(std::make_shared<const Kind>(std::move(ggml))) {}

bool Weight::defined() const {
  return visit([](const auto& weight) { return weight.defined(); });
}
int64_t Weight::rows() const {
  return visit([](const auto& weight) { return rows_of(weight); });
}
int64_t Weight::columns() const {
  return visit([](const auto& weight) { return columns_of(weight); });
}
DType Weight::dtype() const {
  return visit([](const auto& weight) { return dtype_of(weight); });
}
Device Weight::device() const {
  return visit([](const auto& weight) { return weight.device(); });
}
int64_t Weight::nbytes() const {
  return visit([](const auto& weight) { return weight.nbytes(); });
}

}  // namespace lathe::kernels
