#include "kernels/matmul/cuda/codes_reader.cuh"
#include "kernels/matmul/cuda/grouped_codes.cuh"

namespace lathe::kernels {

template <DeviceKind>
void grouped_quantized(const GroupedArgs& args, const QuantizedProductArgs& first) {
  using namespace LATHE_CUDA_NAMESPACE;
  with_codes(first, [&]<class T, class Codes>(const Codes& codes) {
    start_grouped_codes<T, WeightReader<T, Codes, CodesBlock<1>>, WeightReader<T, Codes, CodesBlock<2>>>(args, codes);
  });
}
template void grouped_quantized<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupedArgs&, const QuantizedProductArgs&);

}  // namespace lathe::kernels
