// Holding the linears of a model's layers as codes: what is asked for, what a model's files already are, and what comes
// of both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/matmul/weights/quantized_weight.h"

namespace lathe::nn {

struct LinearShape;
struct ModelFiles;

inline constexpr int64_t nf4_block = 64;  // bitsandbytes' own default

// Names and defaults are bitsandbytes'. The embedding and the output projection stay dense.
struct Quantization {
  kernels::QuantizedFormat format = kernels::QuantizedFormat::nf4;
  // Of nf4: whether the scales of its blocks are quantised, too (bnb_4bit_use_double_quant).
  kernels::Nf4Scales scales = kernels::Nf4Scales::plain;
};

std::string name_of(const Quantization& quantization);  // "nf4", "nf4 with double quantisation", "int8"

// What the flags of those names ask for; nothing without one. ConfigError for the first two together, and for the third
// without the first.
std::optional<Quantization> quantization_of(bool load_in_4bit, bool load_in_8bit, bool bnb_4bit_use_double_quant);

// How the linears of these files are held: as the codes that the files have, else as wanted. ConfigError where the
// files have codes of another format than the one wanted.
std::optional<Quantization> resolved_quantization(const ModelFiles& files, const std::optional<Quantization>& wanted);

// Sentences for the user: the files' linears lost precision once already; their own codes are what counts.
std::vector<std::string> quantization_warnings(const ModelFiles& files, const std::optional<Quantization>& wanted);

// The bytes of a linear's weight in memory: codes with their scales where it is quantised and its columns suit
// products, else the dtype's.
int64_t linear_bytes(const LinearShape& linear, DType dtype, const std::optional<Quantization>& quantization,
                     Device device);

}  // namespace lathe::nn
