#include "nn/weights/key_head_rows.h"

#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

KeyHeadRows key_head_rows_of(const ModelConfig& config) {
  const kernels::GatedDeltaHeads& heads = config.gated_delta.heads;
  return {.key_heads = heads.key_heads, .key_dim = heads.key_dim, .values = heads.out_columns() / heads.key_heads};
}

std::string weight_name(int64_t layer, const char* module) { return layer_prefix(layer) + module + ".weight"; }

// A source with some weights in place of others: `made` by their names, each read from the source's own.
template <class Made>
class Rearranged : public WeightSource {
 public:
  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = index_.find(std::string(name));
    return found == index_.end() ? nullptr : &infos_[found->second];
  }
  void release_pages() const override { source_->release_pages(); }
  std::optional<kernels::StoredWeight> codes(std::string_view name) const override {
    return made_.contains(name) ? std::nullopt : source_->codes(name);
  }

 protected:
  Rearranged(std::shared_ptr<const WeightSource> source, const ModelConfig& config)
      : source_(std::move(source)), rows_(key_head_rows_of(config)) {}

  void add(WeightInfo info) {
    index_.emplace(info.name, infos_.size());
    infos_.push_back(std::move(info));
  }

  std::shared_ptr<const WeightSource> source_;
  KeyHeadRows rows_;
  std::vector<WeightInfo> infos_;
  std::unordered_map<std::string, size_t> index_;  // of thousands of experts
  std::map<std::string, Made, std::less<>> made_;
};

// The file's names of q, k and v, and of z.
struct TwoWeights {
  std::string qkv, z;
};

class JoinedKeyHeads final : public Rearranged<TwoWeights> {
 public:
  JoinedKeyHeads(std::shared_ptr<const WeightSource> source, const ModelConfig& config)
      : Rearranged(std::move(source), config) {
    std::map<std::string, std::string> joined;  // by the name of q, k and v; of z: ""
    for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
      TwoWeights two{weight_name(i, qkv_of_heads), weight_name(i, z_of_heads)};
      if (!source_->find(two.qkv) || !source_->find(two.z)) continue;  // what is missing is the loader's to say
      const std::string name = weight_name(i, qkvz_by_key_heads);
      joined[two.qkv] = name;
      joined[two.z] = "";
      made_.emplace(name, std::move(two));
    }
    for (const WeightInfo& info : source_->weights()) {
      const auto found = joined.find(info.name);
      if (found == joined.end()) add(info);
      if (found != joined.end() && !found->second.empty()) add(joined_info(found->second));
    }
  }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = made_.find(name);
    if (found == made_.end()) return source_->read_rows(name, first, count, out);
    const int64_t columns = find(name)->shape[1];
    for (int64_t row = first; row < first + count; ++row, out += columns) {
      const int64_t stored = rows_.stored(row), behind = stored - rows_.qkv_rows();
      source_->read_rows(behind < 0 ? found->second.qkv : found->second.z, behind < 0 ? stored : behind, 1, out);
    }
  }

  std::optional<StoredBlocks> blocks(std::string_view name) const override {
    const auto found = made_.find(name);
    if (found == made_.end()) return source_->blocks(name);
    const std::optional<StoredBlocks> qkv = source_->blocks(found->second.qkv), z = source_->blocks(found->second.z);
    if (!qkv || !z || qkv->format != z->format) return std::nullopt;
    StoredBlocks all{qkv->format, {}};
    for (int64_t row = 0; row < rows_.qkv_rows() + rows_.z_rows(); ++row) {
      const int64_t stored = rows_.stored(row), behind = stored - rows_.qkv_rows();
      all.rows.push_back(behind < 0 ? qkv->rows[static_cast<size_t>(stored)] : z->rows[static_cast<size_t>(behind)]);
    }
    return all;
  }

 private:
  WeightInfo joined_info(const std::string& name) const {
    const TwoWeights& two = made_.at(name);
    const WeightInfo &qkv = *source_->find(two.qkv), &z = *source_->find(two.z);
    const int64_t columns = qkv.shape[-1];
    for (const auto& [info, rows] : {std::pair(&qkv, rows_.qkv_rows()), std::pair(&z, rows_.z_rows())})
      if (info->shape != Shape{rows, columns})
        throw FormatError("the model's weights", -1,
                          info->stored_name + ": expected shape " + to_string(Shape{rows, columns}) + ", found " +
                              to_string(info->shape));
    return {name,
            qkv.stored_name,
            qkv.stored_type,
            {rows_.qkv_rows() + rows_.z_rows(), columns},
            qkv.stored_bytes + z.stored_bytes,
            qkv.has_blocks && z.has_blocks && qkv.stored_type == z.stored_type};
  }
};

// The source's weight, and where these rows begin in GGUF's order of it.
struct SomeRows {
  std::string of;
  int64_t first;
};

class SplitKeyHeads final : public Rearranged<SomeRows> {
 public:
  SplitKeyHeads(std::shared_ptr<const WeightSource> source, const ModelConfig& config)
      : Rearranged(std::move(source), config) {
    std::map<std::string, int64_t> layers;
    for (int64_t i = 0; i < config.num_hidden_layers(); ++i) layers[weight_name(i, qkvz_by_key_heads)] = i;
    for (const WeightInfo& info : source_->weights()) {
      const auto found = layers.find(info.name);
      if (found == layers.end()) {
        add(info);
        continue;
      }
      if (info.shape.rank() != 2 || info.shape[0] != rows_.qkv_rows() + rows_.z_rows())
        throw FormatError("the model's weights", -1,
                          info.name + ": expected " + std::to_string(rows_.qkv_rows() + rows_.z_rows()) +
                              " rows, found shape " + to_string(info.shape));
      add_part(info, weight_name(found->second, qkv_of_heads), 0, rows_.qkv_rows());
      add_part(info, weight_name(found->second, z_of_heads), rows_.qkv_rows(), rows_.z_rows());
    }
  }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = made_.find(name);
    if (found == made_.end()) return source_->read_rows(name, first, count, out);
    const int64_t columns = find(name)->shape[1];
    for (int64_t i = 0; i < count; ++i)
      source_->read_rows(found->second.of, rows_.plain(found->second.first + first + i), 1, out + i * columns);
  }

  std::optional<StoredBlocks> blocks(std::string_view name) const override {
    return made_.contains(name) ? std::nullopt : source_->blocks(name);
  }

 private:
  void add_part(const WeightInfo& whole, const std::string& name, int64_t first, int64_t rows) {
    add({name,
         whole.stored_name,
         whole.stored_type,
         {rows, whole.shape[1]},
         whole.stored_bytes / whole.shape[0] * rows,
         false});
    made_.emplace(name, SomeRows{whole.name, first});
  }
};

}  // namespace

std::unique_ptr<WeightSource> join_key_heads(std::unique_ptr<WeightSource> source, const ModelConfig& config) {
  if (!config.gated_delta.joined_projections) return source;
  return std::make_unique<JoinedKeyHeads>(std::move(source), config);
}

std::shared_ptr<const WeightSource> split_key_heads(std::shared_ptr<const WeightSource> source,
                                                    const ModelConfig& config) {
  if (!config.gated_delta.joined_projections) return source;
  return std::make_shared<SplitKeyHeads>(std::move(source), config);
}

}  // namespace lathe::nn
