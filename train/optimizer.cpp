#include "train/optimizer.h"

#include <algorithm>
#include <map>

#include "kernels/copy/copy.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/runtime.h"
#include "kernels/gradient_norm/gradient_norm.h"
#include "kernels/lion/lion.h"
#include "kernels/sgd/sgd.h"

namespace lathe::train {
namespace {

kernels::AdamW8bitStates zero_moments(const Tensor& master, OptimizerKind kind) {
  const auto zeros = [&](const Shape& shape, DType dtype) {
    return Tensor::zeros(shape, dtype, master.device(), MemoryTag::optimizer);
  };
  const Shape& shape = master.shape();
  if (kind == OptimizerKind::sgd) return {};
  if (kind == OptimizerKind::lion) return {zeros(shape, master.dtype()), {}, {}, {}};
  if (kind == OptimizerKind::adamw || master.numel() < kernels::adamw_8bit_least_elements)
    return {zeros(shape, master.dtype()), zeros(shape, master.dtype()), {}, {}};
  const Shape blocks = {(master.numel() + kernels::adamw_8bit_block - 1) / kernels::adamw_8bit_block};
  return {zeros(shape, DType::u8), zeros(shape, DType::u8), zeros(blocks, master.dtype()),
          zeros(blocks, master.dtype())};
}

// As transformers groups them: all but norms and biases, which are vectors. DoRA's magnitudes are vectors that decay.
bool decays(const nn::Parameter& parameter) {
  return parameter.master.rank() > 1 || parameter.name.ends_with(".lora_magnitude_vector");
}

// A tensor's place in one buffer of them: it begins on a line of 64 bytes, so that devices move it as vectors.
int64_t padded(int64_t elements) { return (elements + 15) / 16 * 16; }

// The parameters by where their gradients lie in one buffer: in their order, but leaves that share a storage one after
// another as they lie there, so that a product that reads them as one matrix finds one of gradients, too.
std::vector<size_t> by_storage(const std::vector<nn::Parameter>& parameters) {
  struct Place {
    size_t first_of_storage, parameter;
    int64_t offset;
  };
  std::map<const Storage*, size_t> first;
  std::vector<Place> places;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& leaf = parameters[i].leaf.value();
    places.push_back({first.emplace(leaf.storage().get(), i).first->second, i, leaf.byte_offset()});
  }
  std::ranges::stable_sort(places, {},
                           [](const Place& place) { return std::pair(place.first_of_storage, place.offset); });
  std::vector<size_t> order;
  for (const Place& place : places) order.push_back(place.parameter);
  return order;
}

// What the forward reads, where it is no master.
Tensor rounded_leaf(const nn::Parameter& parameter) {
  const Tensor& leaf = parameter.leaf.value();
  return leaf.dtype() == parameter.master.dtype() ? Tensor() : leaf;
}

}  // namespace

Optimizer::Optimizer(std::vector<nn::Parameter> parameters, const TrainingSettings& settings)
    : parameters_(std::move(parameters)),
      kind_(settings.optimizer()),
      max_grad_norm_(settings.max_grad_norm),
      beta1_(settings.adam_beta1),
      beta2_(settings.adam_beta2),
      eps_(settings.adam_epsilon),
      weight_decay_(settings.weight_decay) {
  const Device device = parameters_.empty() ? Device{} : parameters_.front().master.device();
  clip_ = Tensor::empty({2}, DType::f64, device, MemoryTag::gradients);
  if (parameters_.empty()) return;
  int64_t elements = 0;
  for (const nn::Parameter& parameter : parameters_) elements += padded(parameter.master.numel());
  const Tensor& first = parameters_.front().master;
  gradients_ = Tensor::zeros({elements}, first.dtype(), first.device(), MemoryTag::gradients);
  for (const nn::Parameter& parameter : parameters_) moments_.push_back(zero_moments(parameter.master, kind_));
  int64_t begin = 0;
  for (const size_t i : by_storage(parameters_)) {
    const nn::Parameter& parameter = parameters_[i];
    const Tensor& master = parameter.master;
    parameter.leaf.set_grad(gradients_.slice(0, begin, begin + master.numel()).view(master.shape()));
    begin += padded(master.numel());
  }
}

void Optimizer::zero_gradients() {
  if (gradients_.defined()) kernels::fill(gradients_, 0.0);
}

void Optimizer::clip(double loss_scale, std::span<const Tensor> watched) {
  std::vector<Tensor> gradients;
  for (const nn::Parameter& parameter : parameters_) gradients.push_back(parameter.leaf.grad());
  kernels::clip_factor(clip_, gradients, watched, {.max_norm = max_grad_norm_, .loss_scale = loss_scale});
  clip_read_ = kernels::queued_to_host(clip_);
}

double Optimizer::gradient_norm() const {
  kernels::synchronize(clip_.device());
  return clip_read_.data<double>()[0];
}

void Optimizer::step(int64_t step, double learning_rate) {
  kernels::AdamWParams params;
  params.learning_rate = learning_rate;
  params.beta1 = beta1_;
  params.beta2 = beta2_;
  params.eps = eps_;
  params.step = step;
  for (const bool decaying : {true, false}) {
    params.weight_decay = decaying ? weight_decay_ : 0.0;
    step_those(decaying, params);
  }
  for (const nn::Parameter& parameter : parameters_) parameter.leaf.value().bump_version();
}

void Optimizer::step_those(bool decaying, const kernels::AdamWParams& p) const {
  std::vector<kernels::AdamWTensors> adamw;
  std::vector<kernels::AdamW8bitTensors> adamw_8bit;
  std::vector<kernels::LionTensors> lion;
  std::vector<kernels::SgdTensors> sgd;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const nn::Parameter& parameter = parameters_[i];
    if (decays(parameter) != decaying) continue;
    const kernels::AdamW8bitStates& moments = moments_[i];
    const Tensor &master = parameter.master, gradient = parameter.leaf.grad(), rounded = rounded_leaf(parameter);
    if (kind_ == OptimizerKind::sgd) {
      sgd.push_back({master, gradient, rounded});
    } else if (kind_ == OptimizerKind::lion) {
      lion.push_back({master, gradient, moments.m, rounded});
    } else if (moments.m_absmax.defined()) {
      adamw_8bit.push_back({master, gradient, moments, rounded});
    } else {
      adamw.push_back({master, gradient, moments.m, moments.v, rounded});
    }
  }
  kernels::sgd(sgd, {.learning_rate = p.learning_rate, .weight_decay = p.weight_decay}, clip_);
  kernels::lion(lion,
                {.learning_rate = p.learning_rate, .beta1 = p.beta1, .beta2 = p.beta2, .weight_decay = p.weight_decay},
                clip_);
  kernels::adamw_8bit(adamw_8bit, p, clip_);
  kernels::adamw(adamw, p, clip_);
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [m, v, m_absmax, v_absmax] = moments_[i];
    const auto add = [&, &name = parameters_[i].name](const char* state, const Tensor& tensor) {
      if (tensor.defined()) tensors.emplace_back(name + state, tensor);
    };
    add(".exp_avg", m);
    add(".exp_avg_sq", v);
    add(".exp_avg.absmax", m_absmax);
    add(".exp_avg_sq.absmax", v_absmax);
  }
  return tensors;
}

}  // namespace lathe::train
