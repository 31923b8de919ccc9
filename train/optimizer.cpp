#include "train/optimizer.h"

#include <algorithm>

#include "kernels/gradient_norm/gradient_norm.h"

namespace lathe::train {
namespace {

kernels::AdamW8bitStates zero_moments(const Tensor& master, bool in_8_bits) {
  const auto zeros = [&](const Shape& shape, DType dtype) {
    return Tensor::zeros(shape, dtype, master.device(), MemoryTag::optimizer);
  };
  const Shape& shape = master.shape();
  if (!in_8_bits || master.numel() < kernels::adamw_8bit_least_elements)
    return {zeros(shape, master.dtype()), zeros(shape, master.dtype()), {}, {}};
  const Shape blocks = {(master.numel() + kernels::adamw_8bit_block - 1) / kernels::adamw_8bit_block};
  return {zeros(shape, DType::u8), zeros(shape, DType::u8), zeros(blocks, master.dtype()),
          zeros(blocks, master.dtype())};
}

}  // namespace

Optimizer::Optimizer(std::vector<nn::Parameter> parameters, const TrainingSettings& settings)
    : parameters_(std::move(parameters)),
      max_grad_norm_(settings.max_grad_norm),
      beta1_(settings.adam_beta1),
      beta2_(settings.adam_beta2),
      eps_(settings.adam_epsilon),
      weight_decay_(settings.weight_decay) {
  for (nn::Parameter& parameter : parameters_) {
    const Tensor& master = parameter.master;
    moments_.push_back(zero_moments(master, settings.moments_in_8_bits()));
    parameter.leaf.set_grad(Tensor::zeros(master.shape(), master.dtype(), master.device(), MemoryTag::gradients));
  }
}

void Optimizer::zero_gradients() {
  for (nn::Parameter& parameter : parameters_) parameter.leaf.zero_grad();
}

double Optimizer::gradient_norm() const {
  std::vector<Tensor> gradients;
  for (const nn::Parameter& parameter : parameters_) gradients.push_back(parameter.leaf.grad());
  return kernels::gradient_norm(gradients);
}

void Optimizer::step(int64_t step, double learning_rate, double norm) {
  kernels::AdamWParams params;
  params.learning_rate = learning_rate;
  params.beta1 = beta1_;
  params.beta2 = beta2_;
  params.eps = eps_;
  params.step = step;
  if (max_grad_norm_ > 0) params.grad_scale = std::min(1.0, max_grad_norm_ / (norm + 1e-6));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    nn::Parameter& parameter = parameters_[i];
    params.weight_decay = parameter.master.rank() > 1 ? weight_decay_ : 0.0;  // vectors are norms and biases
    const kernels::AdamW8bitStates& moments = moments_[i];
    if (moments.m_absmax.defined()) {
      kernels::adamw_8bit(parameter.master, parameter.leaf.grad(), moments, params);
    } else {
      kernels::adamw(parameter.master, parameter.leaf.grad(), moments.m, moments.v, params);
    }
    parameter.refresh();
  }
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [m, v, m_absmax, v_absmax] = moments_[i];
    tensors.emplace_back(parameters_[i].name + ".exp_avg", m);
    tensors.emplace_back(parameters_[i].name + ".exp_avg_sq", v);
    if (!m_absmax.defined()) continue;
    tensors.emplace_back(parameters_[i].name + ".exp_avg.absmax", m_absmax);
    tensors.emplace_back(parameters_[i].name + ".exp_avg_sq.absmax", v_absmax);
  }
  return tensors;
}

}  // namespace lathe::train
