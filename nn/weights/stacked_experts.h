// The experts of a layer as some models have them in a Hugging Face directory: stacked. gpt-oss has gate and up
// interleaved, and each matrix the other way round.
//   experts.gate_up_proj       [E, hidden, 2F]: gate's row f of expert e is its column 2f, up's its column 2f + 1
//   experts.gate_up_proj_bias  [E, 2F]
//   experts.down_proj          [E, F, hidden]
//   experts.down_proj_bias     [E, hidden]
// or, in place of X = gate_up_proj and down_proj, in MXFP4 (OCP Microscaling 1.0), the right way round:
//   experts.X_blocks  U8 [E, rows, columns/32, 16]: byte j of a block has its elements 2j, in the low bits, and 2j + 1
//   experts.X_scales  U8 [E, rows, columns/32]: a block's elements (e2m1) times 2^(scale − 127)
// Granite has the right way round, gate's rows before up's:
//   input_linear.weight        [E, 2F, hidden]
//   output_linear.weight       [E, hidden, F]
// and so have, by the names that transformers holds experts by, Qwen3.5's own directories:
//   experts.gate_up_proj       [E, 2F, hidden]
//   experts.down_proj          [E, hidden, F]
// These are read, and written apart, as transformers itself does.
#pragma once

#include <memory>

#include "nn/config.h"
#include "nn/weights/safetensors.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// Whether there are some by transformers' names, or by Granite's.
bool has_stacked_experts(const SafetensorsTensors& tensors);

// The weights of such a directory with each expert's linears apart, by the names of nn/layer_layout.h
// ("experts.3.gate_proj.weight"). MXFP4 is widened when its rows are read. FormatError for parts that are missing or do
// not fit together. StackedExperts::gate_before_up: those of transformers' names, too, are the right way round.
std::unique_ptr<WeightSource> split_experts(const SafetensorsTensors& tensors, StackedExperts kind);

// The other way round: weights that are apart as transformers reads them. The source must outlive the result. Rows are
// fastest in their order. FormatError for an expert that is missing.
std::unique_ptr<WeightSource> stack_experts(const WeightSource& source, const ModelConfig& config);

}  // namespace lathe::nn
