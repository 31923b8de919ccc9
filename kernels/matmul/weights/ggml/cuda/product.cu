// A few rows times a weight in ggml's blocks (codes_product.cuh).
#include "kernels/matmul/cuda/codes_product.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"
#include "kernels/matmul/weights/ggml/cuda/tile_reader.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// Always as several, the others empty: half as many kernels.
template <class T, class Format>
void start(const GgmlTilesProducts& products) {
  CodesProducts<T, TileCodes, joined_most> all{};
  for (int i = 0; i < joined_most; ++i) {
    const GgmlTilesProductArgs& of = products.of[i < products.count ? i : 0];
    all.of[i] = codes_product<T>(of.product, codes_of(of.weight));
    if (i >= products.count) all.of[i].epilogue.n = 0;
  }
  start_codes_products<T, AloneReader<T, Format>, joined_most>("ggml_product", all);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void ggml_product_tiles(const GgmlTilesProducts& products) {
  ggml::with_format(products.of[0].weight.format, [&]<class Format>() {
    products.of[0].product.dtype == DType::bf16 ? start<bf16_t, Format>(products) : start<f16_t, Format>(products);
  });
}
template void ggml_product_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const GgmlTilesProducts&);

template <DeviceKind>
void ggml_gated_tiles(const GgmlTilesProductArgs& gate, const GgmlTilesProductArgs& up, const GatedResult& result) {
  using namespace LATHE_CUDA_NAMESPACE;
  const auto start = [&]<class T, class Format>() {
    start_gated_codes<T, GatedReader<T, Format>>("ggml_gated", gate.product, result, codes_of(gate.weight),
                                                 codes_of(up.weight));
  };
  ggml::with_format(gate.weight.format, [&]<class Format>() {
    gate.product.dtype == DType::bf16 ? start.template operator()<bf16_t, Format>()
                                      : start.template operator()<f16_t, Format>();
  });
}
template void ggml_gated_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const GgmlTilesProductArgs&,
                                                                 const GgmlTilesProductArgs&, const GatedResult&);

}  // namespace lathe::kernels
