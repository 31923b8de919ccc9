// Checkpoints whose linears are small numbers beside scales, read: a Hugging Face directory whose config.json has a
// quantization_config with the quant_method
//   fp8                 transformers' (DeepSeek, Qwen3, Ministral 3): in X.weight [out, in] F8_E4M3, in
//                       X.weight_scale_inv one scale, or one for each block of weight_block_size; AutoFP8's the same
//                       with X.weight_scale
//   compressed-tensors  float-quantized, naive-quantized, int-quantized: X.weight F8_E4M3 or I8, X.weight_scale one,
//                       one for each row, each group of a row or each block, X.weight_zero_point I8 of the same shape.
//                       pack-quantized: X.weight_packed I32 [out, ⌈in · bits / 32⌉] with codes of 4 or 8 bits from the
//                       lowest, each more by 2^(bits−1) than the number, X.weight_zero_point I32 [⌈out · bits / 32⌉,
//                       groups] likewise along out, X.weight_g_idx I32 [in] where groups are no neighbours
//   modelopt            quant_algo FP8: X.weight F8_E4M3, X.weight_scale one scale
// A weight is scale · (number − zero); compressed-tensors rounds it to the dtype of the scales. What is said of
// activations (input_scale, activation_scale) and of keys and values is left alone: they are computed in the model's
// dtype.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "nn/weights/weight_source.h"

namespace lathe::nn {

enum class ScaledMethod { fp8, compressed_tensors, modelopt };

struct ScaledQuantization {
  ScaledMethod method = ScaledMethod::fp8;
  int64_t block_rows = 0, block_columns = 0;  // 0: the shape of the scales says it
};

// What config.json says; nothing for a directory that is not quantised in these ways. FormatError or ConfigError naming
// the key for what is not read here (four-bit floating numbers, sparse weights).
std::optional<ScaledQuantization> scaled_quantization_of(const std::filesystem::path& directory);

// The weights of such a directory, each dequantised when it is read. FormatError for parts that are missing or do not
// fit together.
std::unique_ptr<WeightSource> open_scaled_weights(const std::filesystem::path& directory,
                                                  const ScaledQuantization& quantization);

}  // namespace lathe::nn
