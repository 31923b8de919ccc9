#include "train/optimizer.h"

#include <algorithm>

#include "kernels/adamw/adamw.h"
#include "kernels/gradient_norm/gradient_norm.h"

namespace lathe::train {

Optimizer::Optimizer(std::vector<nn::Parameter> parameters, const TrainingConfig& config)
    : parameters_(std::move(parameters)),
      max_grad_norm_(config.max_grad_norm),
      beta1_(config.adam_beta1),
      beta2_(config.adam_beta2),
      eps_(config.adam_epsilon),
      weight_decay_(config.weight_decay) {
  for (const nn::Parameter& parameter : parameters_) {
    const Tensor& master = parameter.master;
    mean_.push_back(Tensor::zeros(master.shape(), master.dtype(), master.device(), MemoryTag::optimizer));
    mean_square_.push_back(Tensor::zeros(master.shape(), master.dtype(), master.device(), MemoryTag::optimizer));
    parameter.leaf.set_grad(Tensor::zeros(master.shape(), master.dtype(), master.device(), MemoryTag::gradients));
  }
}

void Optimizer::zero_gradients() const {
  for (const nn::Parameter& parameter : parameters_) parameter.leaf.zero_grad();
}

double Optimizer::gradient_norm() const {
  std::vector<Tensor> gradients;
  for (const nn::Parameter& parameter : parameters_) gradients.push_back(parameter.leaf.grad());
  return kernels::gradient_norm(gradients);
}

void Optimizer::step(int64_t step, double learning_rate, double norm) const {
  kernels::AdamWParams params;
  params.learning_rate = learning_rate;
  params.beta1 = beta1_;
  params.beta2 = beta2_;
  params.eps = eps_;
  params.step = step;
  if (max_grad_norm_ > 0) params.grad_scale = std::min(1.0, max_grad_norm_ / (norm + 1e-6));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const nn::Parameter& parameter = parameters_[i];
    params.weight_decay = parameter.master.rank() > 1 ? weight_decay_ : 0.0;  // vectors are norms and biases
    kernels::adamw(parameter.master, parameter.leaf.grad(), mean_[i], mean_square_[i], params);
    parameter.refresh();
  }
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    tensors.emplace_back(parameters_[i].name + ".exp_avg", mean_[i]);
    tensors.emplace_back(parameters_[i].name + ".exp_avg_sq", mean_square_[i]);
  }
  return tensors;
}

}  // namespace lathe::train
