// A mixture of experts in place of a feed-forward block: each token goes through the experts that its router logits are
// largest for. Every expert's linears run once, over the rows of its tokens.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "autograd/ops/experts.h"
#include "nn/config.h"
#include "nn/linear.h"

namespace lathe::nn {

// What an adapter does to an expert's linears; those of gate and up share their A. Without dropout and DoRA.
struct ExpertLora {
  std::optional<LoraLayer> gate, up, down;
};

struct Expert {
  Linear gate_proj, up_proj, down_proj;
  std::map<std::string, ExpertLora, std::less<>> lora = {};  // by the adapter's name
};

struct Experts {
  int64_t per_token = 0;
  bool normalised = false;  // a token's weights are divided by their sum
  bool sigmoids = false;    // and are σ of the logits, times `scale`
  float scale = 1;
  Activation activation = Activation::silu;
  Linear router;  // [experts, hidden]
  std::vector<Expert> experts;
  Tensor choice_bias = {};             // f32 (f64 for f64) [experts], or undefined
  autograd::ExpertTables tables = {};  // of `experts`, whose weights may change from then on but not move

  // Sets `tables` for activations of a dtype, where a device has bodies for these weights.
  void make_tables(DType dtype);
  // Whether tokens, where no adapter changes experts, are a few launches on the device, for which nobody waits;
  // otherwise the host must know what was chosen. Where the experts themselves train it must while that is recorded.
  bool stays_on_device() const { return tables.gate.defined(); }
  kernels::ExpertRule rule() const;
  // Whether the experts' weights are leaves.
  bool trains() const;

  // x [T, hidden] → the same shape, added to the residual where there is one. A token's row does not depend on the
  // others.
  autograd::Variable operator()(const autograd::Variable& x, const BatchRows& rows,
                                const autograd::Variable& residual = {}) const;
};

}  // namespace lathe::nn
