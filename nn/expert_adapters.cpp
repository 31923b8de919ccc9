#include "nn/expert_adapters.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "nn/layer_layout.h"
#include "nn/lora_start.h"

namespace lathe::nn {
namespace {

// By transformers' names, whatever the block is called in files.
std::string experts_module(const ModelConfig& model, int64_t layer) {
  return layer_prefix(layer) + model.experts.module_of_parameters + ".experts";
}
std::string gate_up_parameter(const ModelConfig& model, int64_t layer) {
  return experts_module(model, layer) + ".gate_up_proj";
}
std::string down_parameter(const ModelConfig& model, int64_t layer) {
  return experts_module(model, layer) + ".down_proj";
}

// PEFT's module of gate_up_proj: the inner one of two.
std::string gate_up_module(const ModelConfig& model, int64_t layer, const ExpertTargets& targets) {
  return experts_module(model, layer) + (targets.down ? ".base_layer" : "");
}

// Row f of gate (0) or up (1) in B.
int64_t stacked_row(const ModelConfig& model, int64_t which, int64_t f) {
  const bool in_turn = model.experts.stacked == StackedExperts::gate_and_up_in_turn;
  return in_turn ? 2 * f + which : which * model.experts.intermediate_size + f;
}

// One of the two tensors of a layer.
class Factors {
 public:
  Factors(const ModelConfig& model, std::string module, int64_t r, int64_t in, int64_t out)
      : model_(model), module_(std::move(module)), r_(r), in_(in), out_(out) {}

  void take(PeftAdapter& adapter) {
    const auto found = adapter.modules.find(module_);
    if (found == adapter.modules.end())
      throw FormatError("the adapter", -1,
                        "its config targets experts, but there is no " + peft_key(module_, "lora_A"));
    const Shape a_shape{experts() * r_, in_}, b_shape{out_, experts() * r_};
    if (found->second.a.shape() != a_shape || found->second.b.shape() != b_shape)
      throw FormatError("the adapter", -1,
                        module_ + ": expected lora_A " + to_string(a_shape) + " and lora_B " + to_string(b_shape) +
                            ", found " + to_string(found->second.a.shape()) + " and " +
                            to_string(found->second.b.shape()) + "; the adapter was made for another model");
    a_ = kernels::cast(found->second.a, DType::f32);
    b_ = kernels::cast(found->second.b, DType::f32);
    adapter.modules.erase(found);
  }
  void start() {
    a_ = Tensor::empty({experts() * r_, in_}, DType::f32, {}, MemoryTag::adapters);
    b_ = Tensor::empty({out_, experts() * r_}, DType::f32, {}, MemoryTag::adapters);
  }
  void put(PeftAdapter& adapter) const { adapter.modules[module_] = {a_, b_, {}}; }

  Tensor a_of(int64_t expert) const { return a_.slice(0, expert * r_, (expert + 1) * r_); }
  void set_a(int64_t expert, const Tensor& a) const { kernels::copy(a_of(expert), a); }

  // Of the rows that row(0), row(1), … are, so many as `rows` says.
  template <class Row>
  Tensor b_of(int64_t expert, int64_t rows, const Row& row) const {
    const Tensor b = Tensor::empty({rows, r_}, DType::f32, {}, MemoryTag::adapters);
    for (int64_t f = 0; f < rows; ++f)
      for (int64_t i = 0; i < r_; ++i) b.data<float>()[f * r_ + i] = *element(expert, row(f), i);
    return b;
  }
  template <class Row>
  void set_b(int64_t expert, const Tensor& b, const Row& row) const {
    for (int64_t f = 0; f < b.dim(0); ++f)
      for (int64_t i = 0; i < r_; ++i) *element(expert, row(f), i) = b.data<float>()[f * r_ + i];
  }

 private:
  int64_t experts() const { return model_.experts.num_experts; }
  float* element(int64_t expert, int64_t row, int64_t i) const {
    return b_.data<float>() + row * experts() * r_ + i * experts() + expert;
  }

  const ModelConfig& model_;
  std::string module_;
  int64_t r_, in_, out_;
  Tensor a_, b_;
};

Factors gate_up_factors(const ModelConfig& model, const LoraConfig& config, int64_t layer,
                        const ExpertTargets& targets) {
  return {model, gate_up_module(model, layer, targets), config.r, model.hidden_size,
          2 * model.experts.intermediate_size};
}
Factors down_factors(const ModelConfig& model, const LoraConfig& config, int64_t layer) {
  return {model, experts_module(model, layer), config.r, model.experts.intermediate_size, model.hidden_size};
}

// visitor(layer, targets, its layout) for each layer of which experts are adapted.
template <class Visitor>
void for_each_adapted_layer(const ModelConfig& model, const LoraConfig& config, const Visitor& visitor) {
  for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer)
    if (const ExpertTargets targets = expert_targets(model, config, layer); targets.gate_up || targets.down)
      visitor(layer, targets, layer_layout(model, layer));
}

auto rows_of_half(const ModelConfig& model, int64_t which) {
  return [&model, which](int64_t f) { return stacked_row(model, which, f); };
}
int64_t same_row(int64_t row) { return row; }

}  // namespace

ExpertTargets expert_targets(const ModelConfig& model, const LoraConfig& config, int64_t layer) {
  if (config.target_parameters.empty() || !model.layers.at(static_cast<size_t>(layer)).experts) return {};
  return {config.targets_parameter(gate_up_parameter(model, layer)),
          config.targets_parameter(down_parameter(model, layer))};
}

PeftAdapter split_expert_adapters(PeftAdapter adapter, const ModelConfig& model) {
  for_each_adapted_layer(
      model, adapter.config, [&](int64_t layer, const ExpertTargets& targets, const LayerLayout& layout) {
        const int64_t inner = model.experts.intermediate_size;
        const auto module = [&](const LinearShape& linear) { return layer_prefix(layer) + linear.name; };
        Factors gate_up = gate_up_factors(model, adapter.config, layer, targets);
        Factors down = down_factors(model, adapter.config, layer);
        if (targets.gate_up) gate_up.take(adapter);
        if (targets.down) down.take(adapter);
        for (int64_t e = 0; e < model.experts.num_experts; ++e) {
          const ExpertShape& expert = layout.experts[static_cast<size_t>(e)];
          if (targets.gate_up) {
            adapter.modules[module(expert.gate_proj)] = {
                gate_up.a_of(e), gate_up.b_of(e, inner, rows_of_half(model, 0)), {}};
            adapter.modules[module(expert.up_proj)] = {
                gate_up.a_of(e), gate_up.b_of(e, inner, rows_of_half(model, 1)), {}};
          }
          if (targets.down)
            adapter.modules[module(expert.down_proj)] = {down.a_of(e), down.b_of(e, model.hidden_size, same_row), {}};
        }
      });
  return adapter;
}

PeftAdapter stack_expert_adapters(PeftAdapter adapter, const ModelConfig& model) {
  for_each_adapted_layer(model, adapter.config,
                         [&](int64_t layer, const ExpertTargets& targets, const LayerLayout& layout) {
                           const auto taken = [&](const LinearShape& linear) {
                             return std::move(adapter.modules.extract(layer_prefix(layer) + linear.name).mapped());
                           };
                           Factors gate_up = gate_up_factors(model, adapter.config, layer, targets);
                           Factors down = down_factors(model, adapter.config, layer);
                           if (targets.gate_up) gate_up.start();
                           if (targets.down) down.start();
                           for (int64_t e = 0; e < model.experts.num_experts; ++e) {
                             const ExpertShape& expert = layout.experts[static_cast<size_t>(e)];
                             if (targets.gate_up) {
                               const LoraWeights gate = taken(expert.gate_proj), up = taken(expert.up_proj);
                               gate_up.set_a(e, gate.a);
                               gate_up.set_b(e, gate.b, rows_of_half(model, 0));
                               gate_up.set_b(e, up.b, rows_of_half(model, 1));
                             }
                             if (targets.down) {
                               const LoraWeights of_down = taken(expert.down_proj);
                               down.set_a(e, of_down.a);
                               down.set_b(e, of_down.b, same_row);
                             }
                           }
                           if (targets.gate_up) gate_up.put(adapter);
                           if (targets.down) down.put(adapter);
                         });
  return adapter;
}

void check_expert_targets(const ModelConfig& model, const LoraConfig& config) {
  if (config.target_parameters.empty()) return;
  const auto refuse = [](const char* key, const std::string& sentence) {
    throw ConfigError(key, sentence + " target_parameters, the adapters of experts");
  };
  if (config.lora_dropout != 0) refuse("lora_dropout", "is 0 with");
  if (config.use_dora) refuse("use_dora", "does not go with");
  if (!config.rank_pattern.empty()) refuse("rank_pattern", "does not go with");
  if (!config.alpha_pattern.empty()) refuse("alpha_pattern", "does not go with");
  const auto start = parse_lora_start(config.init_lora_weights);
  if (start && (start->from_base() || start->kind == LoraStart::orthogonal))
    refuse("init_lora_weights", config.init_lora_weights + " does not go with");
  for (const std::string& name : config.target_parameters) {
    LoraConfig alone;
    alone.target_parameters = {name};
    bool any = false;
    for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer) {
      const ExpertTargets targets = expert_targets(model, alone, layer);
      any |= targets.gate_up || targets.down;
    }
    const std::string experts = model.experts.module_of_parameters + ".experts.";
    if (!any)
      throw ConfigError("target_parameters", name + " matches none of the model's: those of its experts are " +
                                                 experts + "gate_up_proj and " + experts + "down_proj, if it has some");
  }
}

}  // namespace lathe::nn
