// LoRA on the transformer's linears: adding, loading, taking out.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "nn/transformer.h"

namespace lathe::nn {
namespace {

std::string key_of(const std::string& module, const char* part) {
  return "base_model.model." + module + "." + part + ".weight";
}

// torch's kaiming_uniform_(a = √5): uniform in ±1/√in. Keyed by the linear's number, so that adding a target elsewhere does not
// change this one's numbers.
Tensor kaiming_uniform(int64_t r, int64_t in, uint64_t seed, uint64_t linear_number) {
  Tensor a = Tensor::empty({r, in}, DType::f32, {}, MemoryTag::adapters);
  RandomStream random(seed, RandomPurpose::init, linear_number);
  const float bound = 1.0f / std::sqrt(static_cast<float>(in));
  for (float& value : a.span<float>()) value = (2.0f * random.uniform() - 1.0f) * bound;
  return a;
}

// A copy in f32, on the cpu.
Tensor master_copy(const Tensor& values) {
  const MemoryTagScope tag(MemoryTag::adapters);
  Tensor copy = Tensor::empty(values.shape(), DType::f32);
  kernels::copy(copy, kernels::moved(values, {}));
  return copy;
}

}  // namespace

std::vector<Linear*> Transformer::linears() {
  std::vector<Linear*> all;
  for (Layer& layer : layers_)
    for (Linear* linear : {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj, &layer.gate_proj, &layer.up_proj,
                           &layer.down_proj})
      all.push_back(linear);
  return all;
}

std::vector<const Linear*> Transformer::linears() const {
  const std::vector<Linear*> all = const_cast<Transformer*>(this)->linears();
  return {all.begin(), all.end()};
}

void Transformer::attach_lora(Linear& linear, const LoraConfig& config, Tensor a, Tensor b) {
  if (options_.dtype == DType::f64) {
    a = kernels::cast(a, DType::f64);
    b = kernels::cast(b, DType::f64);
  }
  a = kernels::moved(a, options_.device, MemoryTag::adapters);
  b = kernels::moved(b, options_.device, MemoryTag::adapters);
  LoraLayer lora;
  lora.a = Parameter::make(key_of(linear.name, "lora_A"), std::move(a), options_.dtype);
  lora.b = Parameter::make(key_of(linear.name, "lora_B"), std::move(b), options_.dtype);
  lora.scaling = static_cast<float>(config.scaling_of(linear.name));
  lora.dropout = static_cast<float>(config.lora_dropout);
  linear.lora = std::move(lora);
}

void Transformer::add_lora(const LoraConfig& config, uint64_t seed) {
  if (has_adapter()) throw ConfigError("adapter", "the model has one already");
  uint16_t number = 0;
  bool any = false;
  for (Linear* linear : linears()) {
    ++number;
    if (!config.targets(linear->name)) continue;
    const int64_t r = config.rank_of(linear->name);
    Tensor b = Tensor::zeros({linear->weight.rows(), r}, DType::f32, {}, MemoryTag::adapters);
    attach_lora(*linear, config, kaiming_uniform(r, linear->weight.columns(), seed, number), std::move(b));
    linear->lora->dropout_stream = number;
    any = true;
  }
  if (!any)
    throw ConfigError("lora_target_modules", "matches no linear of this model; its first is " + linears()[0]->name);
  lora_config_ = config;
}

void Transformer::load_adapter(const PeftAdapter& adapter) {
  if (has_adapter()) throw ConfigError("adapter", "the model has one already");
  size_t found = 0;
  uint16_t number = 0;
  const std::vector<Linear*> all = linears();
  // Everything is checked before anything is attached.
  for (const Linear* linear : all) {
    const auto at = adapter.modules.find(linear->name);
    if (at == adapter.modules.end()) {
      if (adapter.config.targets(linear->name))
        throw FormatError("the adapter", -1,
                          "its config targets " + linear->name + ", but there is no " + key_of(linear->name, "lora_A"));
      continue;
    }
    ++found;
    const int64_t r = adapter.config.rank_of(linear->name);
    const Shape a_shape{r, linear->weight.columns()}, b_shape{linear->weight.rows(), r};
    if (at->second.a.shape() != a_shape || at->second.b.shape() != b_shape)
      throw FormatError("the adapter", -1,
                        linear->name + ": expected lora_A " + to_string(a_shape) + " and lora_B " + to_string(b_shape) +
                            ", found " + to_string(at->second.a.shape()) + " and " + to_string(at->second.b.shape()) +
                            "; the adapter was made for another model");
  }
  for (const auto& [name, weights] : adapter.modules)
    if (std::none_of(all.begin(), all.end(), [&](const Linear* linear) { return linear->name == name; }))
      throw FormatError("the adapter", -1, name + " is no linear of this model; the adapter was made for another model");
  if (found == 0) throw FormatError("the adapter", -1, "holds no weights");
  for (Linear* linear : all) {
    ++number;
    const auto at = adapter.modules.find(linear->name);
    if (at == adapter.modules.end()) continue;
    attach_lora(*linear, adapter.config, master_copy(at->second.a), master_copy(at->second.b));
    linear->lora->dropout_stream = number;
  }
  lora_config_ = adapter.config;
}

PeftAdapter Transformer::adapter() const {
  if (!has_adapter()) throw ConfigError("adapter", "the model has none");
  PeftAdapter result;
  result.config = *lora_config_;
  std::set<std::string> short_names;
  for (const Linear* linear : linears()) {
    if (!linear->lora) continue;
    result.modules[linear->name] = {master_copy(linear->lora->a.master), master_copy(linear->lora->b.master)};
    short_names.insert(linear->name.substr(linear->name.rfind('.') + 1));
  }
  // As PEFT saves it: the names that "all-linear" stood for.
  if (result.config.target_modules_regex == "all-linear") {
    result.config.target_modules_regex.reset();
    result.config.target_modules.assign(short_names.begin(), short_names.end());
  }
  return result;
}

std::vector<Parameter> Transformer::trainable_parameters() const {
  std::vector<Parameter> parameters;
  for (const Linear* linear : linears()) {
    if (!linear->lora) continue;
    parameters.push_back(linear->lora->a);
    parameters.push_back(linear->lora->b);
  }
  return has_adapter() ? parameters : weights_;
}

}  // namespace lathe::nn
