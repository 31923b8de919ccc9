#include "train/optimizer.h"

#include <algorithm>

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

}  // namespace

Optimizer::Optimizer(std::vector<nn::Parameter> parameters, const TrainingSettings& settings)
    : parameters_(std::move(parameters)),
      kind_(settings.optimizer()),
      max_grad_norm_(settings.max_grad_norm),
      beta1_(settings.adam_beta1),
      beta2_(settings.adam_beta2),
      eps_(settings.adam_epsilon),
      weight_decay_(settings.weight_decay) {
  for (nn::Parameter& parameter : parameters_) {
    const Tensor& master = parameter.master;
    moments_.push_back(zero_moments(master, kind_));
    parameter.leaf.set_grad(Tensor::zeros(master.shape(), master.dtype(), master.device(), MemoryTag::gradients));
  }
}

void Optimizer::zero_gradients() {
  for (nn::Parameter& parameter : parameters_) parameter.leaf.zero_grad();
}

double Optimizer::gradient_norm(double loss_scale) const {
  std::vector<Tensor> gradients;
  for (const nn::Parameter& parameter : parameters_) gradients.push_back(parameter.leaf.grad());
  return kernels::gradient_norm(gradients) / loss_scale;
}

void Optimizer::step(int64_t step, double learning_rate, double norm, double loss_scale) {
  kernels::AdamWParams params;
  params.learning_rate = learning_rate;
  params.beta1 = beta1_;
  params.beta2 = beta2_;
  params.eps = eps_;
  params.step = step;
  const double clip = max_grad_norm_ > 0 ? std::min(1.0, max_grad_norm_ / (norm + 1e-6)) : 1.0;
  params.grad_scale = clip / loss_scale;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    params.weight_decay = decays(parameters_[i]) ? weight_decay_ : 0.0;
    step_one(parameters_[i], moments_[i], params);
    parameters_[i].refresh();
  }
}

void Optimizer::step_one(nn::Parameter& parameter, const kernels::AdamW8bitStates& moments,
                         const kernels::AdamWParams& p) const {
  const Tensor &master = parameter.master, grad = parameter.leaf.grad();
  if (kind_ == OptimizerKind::sgd) {
    kernels::sgd(master, grad, {p.learning_rate, p.weight_decay, p.grad_scale});
  } else if (kind_ == OptimizerKind::lion) {
    kernels::lion(master, grad, moments.m, {p.learning_rate, p.beta1, p.beta2, p.weight_decay, p.grad_scale});
  } else if (moments.m_absmax.defined()) {
    kernels::adamw_8bit(master, grad, moments, p);
  } else {
    kernels::adamw(master, grad, moments.m, moments.v, p);
  }
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
