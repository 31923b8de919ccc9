// What the A and B of a new LoRA begin as: PEFT's init_lora_weights.
//
//   true        A kaiming uniform (±1/√in), B zero
//   gaussian    A normal with the deviation 1/r, B zero
//   orthogonal  A and B at random, not zero, and B·A = 0 (r even)
//   false       A and B both uniform (±1/√in, ±1/√r): for tests, the adapter has an effect at once
//   pissa       B·A is the part of W with the r largest singular values (Meng et al. 2024); pissa_niter_N finds it by N
//               iterations at random, nearly as well and in seconds
//   olora       B·A is W's part in the space of its first r columns (Büyükakyüz 2024)
//
// With pissa and olora the base keeps W − s·B·A of the start. PEFT changes the base's weights to that; here the base
// stays as it is and the start is subtracted beside the adapter,
//
//   y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ − s·(x·A₀ᵀ)·B₀ᵀ
//
// so that the model without the adapter is still the base (the reference of DPO and GRPO), nothing is rounded away, and
// the result, saved as [A; A₀] and [B, −B₀] of rank 2r, loads beside the base as it was: PEFT's own conversion
// (path_initial_model_for_weight_conversion).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/tensor.h"

namespace lathe::nn {

enum class LoraStart { kaiming, gaussian, orthogonal, random, pissa, pissa_niter, olora };

struct ParsedLoraStart {
  LoraStart kind = LoraStart::kaiming;
  int64_t iterations = 0;  // of pissa_niter_N
  // Whether it begins as a part of the base, which is subtracted again.
  bool from_base() const {
    return kind == LoraStart::pissa || kind == LoraStart::pissa_niter || kind == LoraStart::olora;
  }
};
// "true", "false", "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora"; nothing for any other.
std::optional<ParsedLoraStart> parse_lora_start(std::string_view text);

struct StartingWeights {
  Tensor a, b;  // f32 [r, in], [out, r], on the cpu
};

// Of the linear [out, in] with that number in its model: the numbers do not depend on what else is targeted.
StartingWeights random_start(LoraStart kind, int64_t r, int64_t in, int64_t out, uint64_t seed, uint64_t linear_number);

// Of a weight f32 [out, in] on the cpu; `r` is at most its smaller side. s·B·A of pissa is the part of the weight, half
// of it in A and half in B; olora has B·A, whatever s.
StartingWeights start_from_base(const ParsedLoraStart& start, const Tensor& weight, int64_t r, double scaling,
                                uint64_t seed, uint64_t linear_number);

}  // namespace lathe::nn
