#include "nn/weight_check.h"

#include <set>

#include "nn/layer_layout.h"

namespace lathe::nn {
namespace {

class WeightCheck {
 public:
  explicit WeightCheck(const ModelFiles& files) : weights_(*files.weights) {
    const ModelConfig& config = files.config;
    expect("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
    expect(config.names.final_norm + ".weight", {config.hidden_size});
    if (!config.tie_word_embeddings) expect("lm_head.weight", {config.vocab_size, config.hidden_size});
    known_.insert({"lm_head.weight", "rope_freqs.weight"});
    for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
      const LayerLayout layer = layer_layout(config, i);
      const std::string prefix = layer_prefix(i);
      for (const NormShape& norm : layer.norms()) expect(prefix + norm.name + ".weight", {norm.size});
      for (const NormShape& vector : layer.bare_vectors()) expect(prefix + vector.name, {vector.size});
      if (layer.conv) {
        expect(prefix + layer.conv->name + ".weight", {layer.conv->columns, 1, layer.conv->taps});
        if (layer.conv->bias) expect(prefix + layer.conv->name + ".bias", {layer.conv->columns});
      }
      for (const LinearShape& linear : layer.linears_and_experts()) {
        expect(prefix + linear.name + ".weight", {linear.out, linear.in});
        if (linear.bias) expect(prefix + linear.name + ".bias", {linear.out});
      }
    }
    for (const WeightInfo& info : weights_.weights())
      if (!known_.contains(info.name)) without_place_.push_back(info.name);
  }

  std::vector<std::string> sentences() const {
    std::vector<std::string> all;
    add(missing_, "missing", all);
    add(other_shape_, "of another shape than the config says", all);
    add(without_place_, "without a place in the config's architecture", all);
    return all;
  }

 private:
  void expect(const std::string& name, const Shape& shape) {
    known_.insert(name);
    const WeightInfo* info = weights_.find(name);
    if (info == nullptr) {
      missing_.push_back(name);
    } else if (info->shape != shape) {
      other_shape_.push_back(name + " " + to_string(info->shape) + " instead of " + to_string(shape));
    }
  }

  static void add(const std::vector<std::string>& names, const char* what, std::vector<std::string>& sentences) {
    constexpr size_t most_names = 5;
    if (names.empty()) return;
    std::string text =
        std::to_string(names.size()) + (names.size() == 1 ? " weight is " : " weights are ") + what + ": ";
    for (size_t i = 0; i < std::min(most_names, names.size()); ++i) text += (i == 0 ? "" : ", ") + names[i];
    sentences.push_back(text + (names.size() > most_names ? ", …" : ""));
  }

  const WeightSource& weights_;
  std::set<std::string> known_;
  std::vector<std::string> missing_, other_shape_, without_place_;
};

}  // namespace

std::vector<std::string> weight_contradictions(const ModelFiles& files) { return WeightCheck(files).sentences(); }

}  // namespace lathe::nn
