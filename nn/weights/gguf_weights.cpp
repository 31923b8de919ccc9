// The weights of a GGUF file under Hugging Face's names and in Hugging Face's row order.
#include <array>
#include <unordered_map>

#include "core/error.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/gguf.h"

namespace lathe::nn {
namespace {

struct NamePair {
  std::string_view gguf, hf;
};
constexpr NamePair whole_names[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr NamePair layer_names[] = {
    {"attn_norm.weight", "input_layernorm.weight"},      {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},        {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},   {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},         {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};

// The stored name itself where no rule maps it, so that `info` still lists the tensor.
std::string hf_name(std::string_view stored) {
  for (const NamePair& pair : whole_names)
    if (stored == pair.gguf) return std::string(pair.hf);
  if (stored.starts_with("blk.")) {
    const size_t dot = stored.find('.', 4);
    if (dot != std::string_view::npos)
      for (const NamePair& pair : layer_names)
        if (stored.substr(dot + 1) == pair.gguf)
          return "model.layers." + std::string(stored.substr(4, dot - 4)) + "." + std::string(pair.hf);
  }
  return std::string(stored);
}

class GgufWeights final : public WeightSource {
 public:
  explicit GgufWeights(std::shared_ptr<const GgufFile> file) : file_(std::move(file)) {
    if (file_->get<std::string>("general.architecture") == "llama") {
      query_heads_ = file_->get<int64_t>("llama.attention.head_count");
      key_heads_ = file_->get_optional<int64_t>("llama.attention.head_count_kv").value_or(query_heads_);
    }
    for (const GgufTensor& tensor : file_->tensors()) {
      WeightInfo info;
      info.name = hf_name(tensor.name);
      info.stored_name = tensor.name;
      info.stored_type = ggml_type(tensor.type)->name;
      info.shape = tensor.shape;
      info.stored_bytes = tensor.nbytes;
      infos_.push_back(std::move(info));
    }
    for (size_t i = 0; i < infos_.size(); ++i)
      if (!by_name_.emplace(infos_[i].name, i).second)
        throw FormatError(file_->path().string(), -1, "two tensors stand for " + infos_[i].name);
  }

  const std::vector<WeightInfo>& weights() const override { return infos_; }

  const WeightInfo* find(std::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &infos_[found->second];
  }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) throw FormatError(file_->path().string(), -1, "has no weight " + std::string(name));
    const GgufTensor& tensor = file_->tensors()[found->second];
    const GgmlType& type = *ggml_type(tensor.type);
    if (type.dequantize == nullptr)
      throw FormatError(file_->path().string(), tensor.offset,
                        tensor.name + ": type " + std::string(type.name) + " cannot be read yet; take a file in another type");
    const int64_t columns = tensor.shape[-1];
    const int64_t rows = tensor.shape.numel() / columns;
    if (first < 0 || count < 0 || first > rows - count)
      throw ShapeError(tensor.name + ": rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                       " asked of " + std::to_string(rows));
    const int64_t blocks = columns / type.block_elements;
    const std::byte* data = file_->tensor_bytes(tensor);
    const int64_t heads = permuted_heads(tensor.name);
    if (heads != 0 && (heads < 0 || rows % (2 * heads) != 0))
      throw FormatError(file_->path().string(), tensor.offset,
                        tensor.name + ": " + std::to_string(rows) + " rows do not divide into " + std::to_string(heads) +
                            " heads of even size");
    for (int64_t i = 0; i < count; ++i) {
      const int64_t stored = heads > 0 ? stored_row(first + i, rows, heads) : first + i;
      type.dequantize(data + stored * blocks * type.block_bytes, blocks, out + i * columns);
    }
  }

 private:
  // llama-architecture files hold Q and K for interleaved rotary pairs; 0 where a tensor is not permuted.
  int64_t permuted_heads(std::string_view stored_name) const {
    if (stored_name.ends_with(".attn_q.weight")) return query_heads_;
    if (stored_name.ends_with(".attn_k.weight")) return key_heads_;
    return 0;
  }

  // Half-split row h·D + half·D/2 + i lies at h·D + 2i + half.
  static int64_t stored_row(int64_t row, int64_t rows, int64_t heads) {
    const int64_t head_dim = rows / heads, head = row / head_dim, within = row % head_dim;
    const int64_t half = within / (head_dim / 2), i = within % (head_dim / 2);
    return head * head_dim + 2 * i + half;
  }

  std::shared_ptr<const GgufFile> file_;
  std::vector<WeightInfo> infos_;
  std::unordered_map<std::string_view, size_t> by_name_;
  int64_t query_heads_ = 0, key_heads_ = 0;
};

}  // namespace

std::unique_ptr<WeightSource> open_gguf_weights(std::shared_ptr<const GgufFile> file) {
  return std::make_unique<GgufWeights>(std::move(file));
}

}  // namespace lathe::nn
