#include "kernels/adamw/adamw.h"

#include <cmath>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/adamw/cpu.h"
#include "kernels/adamw/cuda.h"
#include "kernels/adamw/reference.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/quantization/dynamic_map.h"

namespace lathe::kernels {
namespace {

void check_like(const char* operation, const char* name, const Tensor& tensor, const Tensor& weight, DType dtype) {
  expect(operation, name, tensor).shape(weight.shape()).dtype(dtype).contiguous().device(weight.device());
}

CodeTables tables_of(const DynamicMap& map) { return {map.values.data(), map.thresholds.data(), map.first_code}; }

int64_t blocks_of(const Tensor& weight) { return (weight.numel() + adamw_8bit_block - 1) / adamw_8bit_block; }

AdamW8bitMaps maps_of_states() {
  AdamW8bitMaps maps;
  for (size_t c = 0; c < 256; ++c) {
    maps.m[c] = signed_dynamic_map().values[c];
    maps.v[c] = unsigned_dynamic_map().values[c];
  }
  return maps;
}

}  // namespace

AdamWConstants constants_of(const AdamWParams& params) {
  if (params.step < 1) throw ConfigError("step", "AdamW counts steps from 1, found " + std::to_string(params.step));
  const double step = static_cast<double>(params.step);
  return {.grad_scale = static_cast<float>(params.grad_scale),
          .keep_weight = static_cast<float>(1.0 - params.learning_rate * params.weight_decay),
          .beta1 = static_cast<float>(params.beta1),
          .one_less_beta1 = static_cast<float>(1.0 - params.beta1),
          .beta2 = static_cast<float>(params.beta2),
          .one_less_beta2 = static_cast<float>(1.0 - params.beta2),
          .step_size = static_cast<float>(params.learning_rate / (1.0 - std::pow(params.beta1, step))),
          .inverse_correction2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(params.beta2, step))),
          .eps = static_cast<float>(params.eps)};
}

void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params) {
  expect("adamw", "weight", weight).dtype({DType::f32, DType::f64}).contiguous();
  check_like("adamw", "grad", grad, weight, weight.dtype());
  check_like("adamw", "m", m, weight, weight.dtype());
  check_like("adamw", "v", v, weight, weight.dtype());
  const AdamWConstants constants = constants_of(params);
  if (weight.dtype() == DType::f64) {
    expect_cpu("adamw", weight);
    return reference::adamw(weight, grad, m, v, params);
  }
  if (weight.numel() == 0) return;
  const AdamWOperands operands{weight.data<float>(), grad.data<float>(), m.data<float>(),
                               v.data<float>(),      constants,          weight.numel()};
  if (weight.device().kind != DeviceKind::cpu)
    return with_device(weight.device(), [&]<DeviceKind kind>() { adamw_elements<kind>(operands); });
  parallel_for(weight.numel(), 16384, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { adamw_range<isa>({operands, begin, end}); });
  });
}

void adamw_8bit(const Tensor& weight, const Tensor& grad, const AdamW8bitStates& states, const AdamWParams& params) {
  const char* operation = "adamw_8bit";
  expect(operation, "weight", weight).dtype({DType::f32, DType::f64}).contiguous();
  check_like(operation, "grad", grad, weight, weight.dtype());
  check_like(operation, "m", states.m, weight, DType::u8);
  check_like(operation, "v", states.v, weight, DType::u8);
  for (const auto& [name, absmax] : {std::pair{"m_absmax", &states.m_absmax}, std::pair{"v_absmax", &states.v_absmax}})
    expect(operation, name, *absmax)
        .shape({blocks_of(weight)})
        .dtype(weight.dtype())
        .contiguous()
        .device(weight.device());
  const AdamWConstants constants = constants_of(params);
  if (weight.dtype() == DType::f64) {
    expect_cpu(operation, weight);
    return reference::adamw_8bit(weight, grad, states, params);
  }
  if (weight.numel() == 0) return;
  const AdamW8bitOperands operands{.weight = weight.data<float>(),
                                   .grad = grad.data<float>(),
                                   .m = states.m.data<uint8_t>(),
                                   .v = states.v.data<uint8_t>(),
                                   .m_absmax = states.m_absmax.data<float>(),
                                   .v_absmax = states.v_absmax.data<float>(),
                                   .constants = constants,
                                   .count = weight.numel()};
  if (weight.device().kind != DeviceKind::cpu)
    return with_device(weight.device(), [&]<DeviceKind kind>() {
      adamw_8bit_blocks<kind>({operands, maps_of_states()});
    });
  const CodeTables m_codes = tables_of(signed_dynamic_map()), v_codes = tables_of(unsigned_dynamic_map());
  parallel_for(blocks_of(weight), 32, [&](int64_t begin, int64_t end) {
    with_isa([&]<Isa isa>() { adamw_8bit_range<isa>({operands, m_codes, v_codes, begin, end}); });
  });
}

}  // namespace lathe::kernels
