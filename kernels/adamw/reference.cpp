#include "kernels/adamw/reference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/quantization/dynamic_map.h"
#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

// The code nearest to x, of two equally near the lower.
uint8_t nearest(const DynamicMap& map, double x) {
  const auto above = std::lower_bound(map.values.begin(), map.values.end(), x);
  const ptrdiff_t code = above - map.values.begin();
  if (code == 0) return 0;
  if (code == 256) return 255;
  const bool down = x - static_cast<double>(*(above - 1)) <= static_cast<double>(*above) - x;
  return static_cast<uint8_t>(down ? code - 1 : code);
}

Tensor decode(const DynamicMap& map, const Tensor& codes, const Tensor& absmax) {
  const Tensor values = Tensor::empty(codes.shape(), absmax.dtype());
  for (int64_t i = 0; i < codes.numel(); ++i) {
    write(values.dtype(), values.raw(), i,
          static_cast<double>(map.values[codes.data<uint8_t>()[i]]) *
              read(absmax.dtype(), absmax.raw(), i / adamw_8bit_block));
  }
  return values;
}

void encode(const DynamicMap& map, const Tensor& values, const Tensor& codes, const Tensor& absmax) {
  for (int64_t block = 0; block < absmax.numel(); ++block) {
    const int64_t begin = block * adamw_8bit_block, end = std::min(begin + adamw_8bit_block, values.numel());
    double largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(read(values.dtype(), values.raw(), i)));
    write(absmax.dtype(), absmax.raw(), block, largest);
    for (int64_t i = begin; i < end; ++i)
      codes.data<uint8_t>()[i] = nearest(map, largest > 0 ? read(values.dtype(), values.raw(), i) / largest : 0.0);
  }
}

}  // namespace

void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params) {
  const DType dtype = weight.dtype();
  const double correction1 = 1.0 - std::pow(params.beta1, static_cast<double>(params.step));
  const double correction2 = 1.0 - std::pow(params.beta2, static_cast<double>(params.step));
  for (int64_t i = 0; i < weight.numel(); ++i) {
    const double g = params.grad_scale * read(dtype, grad.raw(), i);
    const double m_new = params.beta1 * read(dtype, m.raw(), i) + (1.0 - params.beta1) * g;
    const double v_new = params.beta2 * read(dtype, v.raw(), i) + (1.0 - params.beta2) * g * g;
    const double decayed = read(dtype, weight.raw(), i) * (1.0 - params.learning_rate * params.weight_decay);
    const double update = m_new / (std::sqrt(v_new) / std::sqrt(correction2) + params.eps);
    write(dtype, m.raw(), i, m_new);
    write(dtype, v.raw(), i, v_new);
    write(dtype, weight.raw(), i, decayed - params.learning_rate / correction1 * update);
  }
}

void adamw_8bit(const Tensor& weight, const Tensor& grad, const AdamW8bitStates& states, const AdamWParams& params) {
  const Tensor m = decode(signed_dynamic_map(), states.m, states.m_absmax);
  const Tensor v = decode(unsigned_dynamic_map(), states.v, states.v_absmax);
  reference::adamw(weight, grad, m, v, params);
  encode(signed_dynamic_map(), m, states.m, states.m_absmax);
  encode(unsigned_dynamic_map(), v, states.v, states.v_absmax);
}

}  // namespace lathe::kernels::reference
