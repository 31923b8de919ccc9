// bitsandbytes' 4-bit checkpoints, read and written as transformers does: a Hugging Face directory whose config.json
// has a quantization_config, and beside a weight X of dtype U8, two codes a byte, its
//   X.absmax               F32 [blocks], or U8 where the scales are quantised, too ("nested")
//   X.quant_map            F32 [16]: what the codes stand for, nf4's values
//   X.nested_absmax        F32 [⌈blocks / 256⌉], X.nested_quant_map F32 [256]
//   X.quant_state.bitsandbytes__nf4   U8: JSON with quant_type, blocksize, dtype, shape, and nested_blocksize,
//                          nested_dtype, nested_offset
// kernels/nf4/nf4.h says what they stand for. bitsandbytes rounds that to the dtype of the JSON; a product here to the
// dtype that it computes in, which is exact in f32.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/nf4/nf4.h"
#include "nn/weights/safetensors.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// Whether config.json says that linears are codes of bitsandbytes. ConfigError for a quantisation that is not read
// here (bitsandbytes' 8 bits and fp4, …), FormatError for a quantization_config that is none.
bool is_bitsandbytes_directory(const std::filesystem::path& directory);

// The weights of such a directory: codes() gives those of a quantised weight as they lie in the mapped file,
// read_rows() what they stand for, in f32. FormatError for parts that are missing, do not fit together, or have a
// codebook of their own.
std::unique_ptr<WeightSource> open_bitsandbytes_weights(const std::filesystem::path& directory);

// The tensors of a quantised weight by the names above, views of it where they can be. `dtype` is what bitsandbytes
// shall dequantise to.
NamedTensors bitsandbytes_tensors(const std::string& name, const kernels::Nf4Weight& weight, DType dtype);

}  // namespace lathe::nn
