// GPTQ's and AWQ's checkpoints, read: a Hugging Face directory whose config.json has a quantization_config, and in
// place of a linear's X.weight [out, in] its
//   X.qweight  I32: codes of `bits` bits. GPTQ [in · bits/32, out], along in, one after the other from the lowest bit,
//              across words where they do not divide them; AWQ [in, out/8], columns 0 2 4 6 1 3 5 7 of eight from the
//              lowest bit
//   X.qzeros   I32 [groups, out · bits/32], along out in the same manners. GPTQ's first format ("gptq") holds zeros
//              less one, as 32-bit words: what was borrowed from a neighbour is carried back. "gptq_v2" and AWQ hold
//              them as they are
//   X.scales   F16, BF16 or F32 [groups, out]
//   X.g_idx    I32 [in], GPTQ's alone: each column's group, in any order (desc_act); without it groups of group_size
//              neighbours
// A weight is scale · (code − zero), rounded to the dtype of the scales: what gptqmodel and autoawq dequantise to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "nn/weights/weight_source.h"

namespace lathe::nn {

enum class PackedMethod { gptq, awq };

struct PackedQuantization {
  PackedMethod method = PackedMethod::gptq;
  int64_t bits = 4;         // 2, 3, 4 or 8; AWQ: 4
  int64_t group_size = -1;  // neighbours of a row that share a scale; -1: all
  bool zeros_less_one = true;
};

// What config.json (or quantize_config.json, of early GPTQ) says; nothing for a directory that is not quantised in
// these ways. FormatError or ConfigError naming the key for what is not read here (AWQ for GEMV, other bits).
std::optional<PackedQuantization> packed_quantization_of(const std::filesystem::path& directory);

// The weights of such a directory, each dequantised when it is read. FormatError for parts that are missing or do not
// fit together.
std::unique_ptr<WeightSource> open_packed_weights(const std::filesystem::path& directory,
                                                  const PackedQuantization& quantization);

}  // namespace lathe::nn
