// A tensor that training updates: an f32 master that the optimiser steps, and the leaf that the forward reads, in the
// model's dtype. In f32 (and f64) they are one tensor.
#pragma once

#include <string>

#include "autograd/variable.h"

namespace lathe::nn {

struct Parameter {
  // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", or Hugging Face's for whole weights.
  std::string name;
  Tensor master;  // f32, or f64 for f64
  autograd::Variable leaf;
  double stored_offset = 0;  // what the master has more than a model file's weight of that name (1 for some norms)
  // Of an adapter that begins as a part of its base (nn/lora_start.h): what is saved after the master, of its shape and
  // dtype, and does not train. Of A it lies below, of B beside.
  Tensor start;

  // A leaf of `dtype` whose gradient accumulates in f32.
  static Parameter make(std::string name, Tensor master, DType dtype);
  // After the master has changed: rounds it into the leaf, and tells autograd that saved copies are stale.
  void refresh();
  // As a model file has it, in the leaf's dtype, on the cpu.
  Tensor stored() const;
};

}  // namespace lathe::nn
