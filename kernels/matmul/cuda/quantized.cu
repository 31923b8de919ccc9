// A few rows times nf4's and int8's codes, which lie as bitsandbytes has them (codes_product.cuh): rows of codes, and
// scales apart.
#include "kernels/matmul/cuda/codes_product.cuh"
#include "kernels/matmul/cuda/codes_reader.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, class Codes>
void start(const QuantizedProducts& products) {
  using Right = WeightReader<T, Codes, CodesBlock<1>>;
  const auto of = [&](int i) { return codes_product<T>(products.of[i].product, Codes(products.of[i])); };
  constexpr const char* name = "quantized_product";
  if (products.count == 1) return start_codes_products<T, Right, 1>(name, {{of(0)}, {}});
  static_assert(joined_most == 3);
  CodesProducts<T, Codes, joined_most> all{{of(0), of(1), of(products.count - 1)}, {}};
  if (products.count == 2) all.of[2].epilogue.n = 0;
  start_codes_products<T, Right, joined_most>(name, all);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_product_tiles(const QuantizedProducts& products) {
  with_codes(products.of[0], [&]<class T, class Codes>(const Codes&) { start<T, Codes>(products); });
}
template void quantized_product_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProducts&);

template <DeviceKind>
void quantized_gated_tiles(const QuantizedProductArgs& gate, const QuantizedProductArgs& up,
                           const GatedResult& result) {
  using namespace LATHE_CUDA_NAMESPACE;
  with_codes(gate, [&]<class T, class Codes>(const Codes& codes) {
    using Right = WeightReader<T, Codes, CodesBlock<2>>;
    start_gated_codes<T, Right>("quantized_gated", gate.product, result, codes, Codes(up));
  });
}
template void quantized_gated_tiles<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProductArgs&,
                                                                      const QuantizedProductArgs&, const GatedResult&);

}  // namespace lathe::kernels
