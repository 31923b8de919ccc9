#include "kernels/matmul/cuda/grouped_codes.cuh"
#include "kernels/matmul/weights/ggml/cuda/tile_reader.cuh"

namespace lathe::kernels {

template <DeviceKind>
void grouped_blocks(const GroupedArgs& args, GgmlFormat format, int64_t tile_bytes) {
  using namespace LATHE_CUDA_NAMESPACE;
  const TileCodes codes{{nullptr}, tile_bytes};
  ggml::with_format(format, [&]<class Format>() {
    args.dtype == DType::bf16
        ? start_grouped_codes<bf16_t, AloneReader<bf16_t, Format>, GatedReader<bf16_t, Format>>(args, codes)
        : start_grouped_codes<f16_t, AloneReader<f16_t, Format>, GatedReader<f16_t, Format>>(args, codes);
  });
}
template void grouped_blocks<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupedArgs&, GgmlFormat, int64_t);

}  // namespace lathe::kernels
