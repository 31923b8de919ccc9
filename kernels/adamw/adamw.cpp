#include "kernels/adamw/adamw.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/adamw/cpu.h"
#include "kernels/adamw/cuda.h"
#include "kernels/adamw/reference.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"
#include "kernels/quantization/dynamic_map.h"
#include "kernels/step_tensors.h"

namespace lathe::kernels {
namespace {

void check_like(const char* operation, const char* name, const Tensor& tensor, const Tensor& weight, DType dtype) {
  expect(operation, name, tensor).shape(weight.shape()).dtype(dtype).contiguous().device(weight.device());
}

CodeTables tables_of(const DynamicMap& map) { return {map.values.data(), map.thresholds.data(), map.first_code}; }

int64_t blocks_of(const Tensor& weight) { return (weight.numel() + adamw_8bit_block - 1) / adamw_8bit_block; }

void check(const AdamWTensors& t, Device device) {
  expect("adamw", "weight", t.weight).dtype({DType::f32, DType::f64}).contiguous().device(device);
  check_like("adamw", "grad", t.grad, t.weight, t.weight.dtype());
  check_like("adamw", "m", t.m, t.weight, t.weight.dtype());
  check_like("adamw", "v", t.v, t.weight, t.weight.dtype());
  if (t.weight.dtype() == DType::f64) expect_cpu("adamw", t.weight);
}

void check(const AdamW8bitTensors& t, Device device) {
  const char* operation = "adamw_8bit";
  const Tensor& weight = t.weight;
  expect(operation, "weight", weight).dtype({DType::f32, DType::f64}).contiguous().device(device);
  check_like(operation, "grad", t.grad, weight, weight.dtype());
  check_like(operation, "m", t.states.m, weight, DType::u8);
  check_like(operation, "v", t.states.v, weight, DType::u8);
  for (const auto& [name, absmax] :
       {std::pair{"m_absmax", &t.states.m_absmax}, std::pair{"v_absmax", &t.states.v_absmax}})
    expect(operation, name, *absmax).shape({blocks_of(weight)}).dtype(weight.dtype()).contiguous().device(device);
  if (weight.dtype() == DType::f64) expect_cpu(operation, weight);
}

AdamWTensor pointers_of(const AdamWTensors& t) {
  return {t.weight.data<float>(),
          t.grad.data<float>(),
          t.m.data<float>(),
          t.v.data<float>(),
          rounded_of("adamw", t.rounded, t.weight),
          t.weight.numel()};
}

AdamW8bitTensor pointers_of(const AdamW8bitTensors& t) {
  return {.weight = t.weight.data<float>(),
          .grad = t.grad.data<float>(),
          .m = t.states.m.data<uint8_t>(),
          .v = t.states.v.data<uint8_t>(),
          .m_absmax = t.states.m_absmax.data<float>(),
          .v_absmax = t.states.v_absmax.data<float>(),
          .rounded = rounded_of("adamw_8bit", t.rounded, t.weight),
          .count = t.weight.numel()};
}

void on_cpu(const AdamWTensors& t, const AdamWParams& params, const AdamWConstants& constants) {
  if (t.weight.dtype() == DType::f64) {
    reference::adamw(t.weight, t.grad, t.m, t.v, params);
  } else {
    const AdamWTensor pointers = pointers_of(t);
    parallel_for(pointers.count, 16384, [&](int64_t begin, int64_t end) {
      with_isa([&]<Isa isa>() { adamw_range<isa>({pointers, constants, begin, end}); });
    });
  }
  if (t.rounded.defined()) copy(t.rounded, t.weight);
}

void on_cpu(const AdamW8bitTensors& t, const AdamWParams& params, const AdamWConstants& constants) {
  if (t.weight.dtype() == DType::f64) {
    reference::adamw_8bit(t.weight, t.grad, t.states, params);
  } else {
    const AdamW8bitTensor pointers = pointers_of(t);
    const CodeTables m_codes = tables_of(signed_dynamic_map()), v_codes = tables_of(unsigned_dynamic_map());
    parallel_for(blocks_of(t.weight), 32, [&](int64_t begin, int64_t end) {
      with_isa([&]<Isa isa>() { adamw_8bit_range<isa>({pointers, constants, m_codes, v_codes, begin, end}); });
    });
  }
  if (t.rounded.defined()) copy(t.rounded, t.weight);
}

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

void adamw(std::span<const AdamWTensors> tensors, const AdamWParams& given, const Tensor& clip) {
  const std::optional<AdamWParams> params = with_factor_of(clip, given);
  if (!params) return;
  const AdamWConstants constants = constants_of(*params);
  step_tensors(
      tensors, [](const AdamWTensors& t, Device device) { check(t, device); },
      [&](const AdamWTensors& t) { on_cpu(t, *params, constants); },
      [](const AdamWTensors& t) { return pointers_of(t); },
      [&](Device device, const std::vector<AdamWTensor>& pointers) {
        with_device(device, [&]<DeviceKind kind>() {
          adamw_tensors<kind>({pointers.data(), std::ssize(pointers), constants, factor_on(device, "adamw", clip)});
        });
      });
}

void adamw(const Tensor& weight, const Tensor& grad, const Tensor& m, const Tensor& v, const AdamWParams& params) {
  const AdamWTensors one{weight, grad, m, v};
  adamw({&one, 1}, params);
}

void adamw_8bit(std::span<const AdamW8bitTensors> tensors, const AdamWParams& given, const Tensor& clip) {
  const std::optional<AdamWParams> params = with_factor_of(clip, given);
  if (!params) return;
  const AdamWConstants constants = constants_of(*params);
  step_tensors(
      tensors, [](const AdamW8bitTensors& t, Device device) { check(t, device); },
      [&](const AdamW8bitTensors& t) { on_cpu(t, *params, constants); },
      [](const AdamW8bitTensors& t) { return pointers_of(t); },
      [&](Device device, const std::vector<AdamW8bitTensor>& pointers) {
        const AdamW8bitMaps maps = maps_of_states();
        with_device(device, [&]<DeviceKind kind>() {
          adamw_8bit_tensors<kind>(
              {pointers.data(), std::ssize(pointers), constants, factor_on(device, "adamw_8bit", clip), &maps});
        });
      });
}

void adamw_8bit(const Tensor& weight, const Tensor& grad, const AdamW8bitStates& states, const AdamWParams& params) {
  const AdamW8bitTensors one{weight, grad, states};
  adamw_8bit({&one, 1}, params);
}

}  // namespace lathe::kernels
