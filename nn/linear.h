// A linear layer: a base weight and the LoRA of every adapter that targets it.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "autograd/ops/linear.h"
#include "nn/dora.h"
#include "nn/packed_lora.h"
#include "nn/parameter.h"

namespace lathe::nn {

// Dropout is for training only: probability 0 elsewhere.
struct AdapterMode {
  uint64_t dropout_seed = 0;
  uint32_t dropout_step = 0;
  bool training = false;
  const uint32_t* stored_dropout_step = nullptr;  // kernels::DropoutParams::stored_step
};

// Sequences that use one adapter.
struct AdapterRun {
  std::string adapter;
  std::optional<autograd::SequenceRun> sequences;  // all of the batch where it is not given
};

// The rows of a forward: what changes from call to call, not from layer to layer.
struct BatchRows {
  autograd::SequenceLayout layout;
  std::vector<AdapterRun> adapters;  // ascending; the sequences between use none
  AdapterMode mode;
};

// [A; A₀] and [B, −B₀] of an adapter that begins as a part of its base, in the dtype of a product.
class JoinedFactors {
 public:
  struct Factors {
    Tensor a, b;  // [2r, in], [out, 2r]
  };
  // Made again where A, B or what they began as has changed since.
  Factors of(const Parameter& a, const Parameter& b) const;

 private:
  mutable std::mutex mutex_;
  mutable std::array<uint64_t, 4> versions_{};
  mutable Factors factors_;
};

struct LoraLayer {
  // A and B, or the joined factors: where kernels::packs_narrow(a).
  PackedLora::Pair packed_factors() const;
  // Of x, before A.
  kernels::DropoutParams dropout_of(const AdapterMode& mode) const;

  Parameter a, b;                         // [r, in], [out, r]
  std::shared_ptr<JoinedFactors> joined;  // where a and b have a start
  std::optional<Parameter> magnitude;     // f32 [out], with DoRA
  std::shared_ptr<DoraNorms> norms;       // with it
  std::shared_ptr<PackedLora> packed = std::make_shared<PackedLora>();
  float scaling = 1.0f;
  float dropout = 0.0f;
  uint16_t dropout_stream =
      0;  // the linear's number in the model: the same for every adapter, since a row uses one of them
};

struct Linear {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  autograd::LinearWeight weight;
  autograd::Variable bias;                                  // [out]; undefined where there is none
  std::map<std::string, LoraLayer, std::less<>> lora = {};  // by the adapter's name

  // x [T, in] → [T, out], plus `residual` [T, out] where it is defined.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows,
                                const autograd::Variable& residual = {}) const;
};

}  // namespace lathe::nn
