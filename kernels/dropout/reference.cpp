#include "kernels/dropout/reference.h"

#include "core/random.h"
#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void dropout(const Tensor& out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
             const DropoutParams& params) {
  const auto bounds = cu_seqlens.span<int32_t>(), samples = sample_numbers.span<int32_t>();
  const double probability = params.probability;
  const uint64_t step = (uint64_t{params.step} << 16) + params.stream;
  for (size_t s = 0; s < samples.size(); ++s) {
    for (int64_t t = bounds[s]; t < bounds[s + 1]; ++t) {
      const uint64_t position =
          (static_cast<uint64_t>(samples[s]) << 32) + (static_cast<uint64_t>(t - bounds[s]) << 14);
      for (int64_t k = 0; k < x.dim(1); ++k) {
        const PhiloxCounter words =
            random_bits(params.seed, RandomPurpose::dropout, step, position + static_cast<uint64_t>(k / 4));
        const bool keep = static_cast<double>(words[static_cast<size_t>(k % 4)]) >= probability * 0x1p32;
        const double value = read(x.dtype(), x.raw(), t * x.stride(0) + k);
        write(out.dtype(), out.raw(), t * out.stride(0) + k, keep ? value / (1.0 - probability) : 0.0);
      }
    }
  }
}

}  // namespace lathe::kernels::reference
