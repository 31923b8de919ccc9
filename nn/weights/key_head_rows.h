// The rows of Qwen3-Next's in_proj_qkvz. Hugging Face has those of each key head together: its q, its k, the v of its
// value heads, their z (q0 k0 v0 z0, q1 k1 v1 z1, …). llama.cpp's converter has q, k and v of all heads in one tensor
// (q0 q1 … k0 k1 … v0 v1 …) and z in another, which here stand behind each other.
#pragma once

#include <cstdint>
#include <memory>

#include "nn/config.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

struct KeyHeadRows {
  int64_t key_heads = 0, key_dim = 0;
  int64_t values = 0;  // rows of v, and of z, of a key head

  int64_t qkv_rows() const { return key_heads * (2 * key_dim + values); }
  int64_t z_rows() const { return key_heads * values; }
  // Where GGUF has row `index` of Hugging Face's, and the other way round.
  int64_t stored(int64_t index) const {
    const int64_t head = index / of_head(), within = index % of_head(), part = part_of(within);
    return key_heads * first_of(part) + head * width_of(part) + within - first_of(part);
  }
  int64_t plain(int64_t index) const {
    int64_t part = 0;
    while (part < 3 && index >= key_heads * first_of(part + 1)) ++part;
    const int64_t within = index - key_heads * first_of(part);
    return within / width_of(part) * of_head() + first_of(part) + within % width_of(part);
  }

 private:
  // Parts 0 to 3: q, k, v and z of a head.
  int64_t of_head() const { return 2 * (key_dim + values); }
  int64_t width_of(int64_t part) const { return part < 2 ? key_dim : values; }
  int64_t first_of(int64_t part) const { return part < 2 ? part * key_dim : 2 * key_dim + (part - 2) * values; }
  int64_t part_of(int64_t within) const {
    return within < 2 * key_dim ? within / key_dim : 2 + (within - 2 * key_dim) / values;
  }
};

// What the two tensors of GGUF are called here, and the one weight of Hugging Face's.
inline constexpr const char* qkv_of_heads = "linear_attn.in_proj_qkv";
inline constexpr const char* z_of_heads = "linear_attn.in_proj_z";
inline constexpr const char* qkvz_by_key_heads = "linear_attn.in_proj_qkvz";

// A file's weights with the two as one; in blocks where both are in blocks of one format. FormatError where they have
// not the config's rows. The source itself where the config has projections apart.
std::unique_ptr<WeightSource> join_key_heads(std::unique_ptr<WeightSource> source, const ModelConfig& config);

// The other way round.
std::shared_ptr<const WeightSource> split_key_heads(std::shared_ptr<const WeightSource> source,
                                                    const ModelConfig& config);

}  // namespace lathe::nn
