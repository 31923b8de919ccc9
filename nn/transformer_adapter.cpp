// LoRA on the transformer's linears: adding, loading, taking out, and which rows of a batch use which.
#include <cmath>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "nn/transformer.h"

namespace lathe::nn {
namespace {

std::string key_of(const std::string& module, const char* part) {
  return "base_model.model." + module + "." + part + ".weight";
}

// torch's kaiming_uniform_(a = √5): uniform in ±1/√in. Keyed by the linear's number, so that adding a target
// elsewhere does not change this one's numbers.
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

// The layers of a model that is const or not, in the order of LayerLayout::linears().
template <class LinearPointer, class Layers>
std::vector<LinearPointer> linears_of(Layers& layers) {
  std::vector<LinearPointer> all;
  for (auto& [attention, feed_forward] : layers)
    for (LinearPointer linear : {&attention.q_proj, &attention.k_proj, &attention.v_proj, &attention.o_proj,
                                 &feed_forward.gate_proj, &feed_forward.up_proj, &feed_forward.down_proj})
      all.push_back(linear);
  return all;
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list.empty() ? "none" : list;
}

// Everything is checked before anything is attached.
void check_fits(const PeftAdapter& adapter, const std::vector<const Linear*>& linears) {
  std::set<std::string_view> known;
  for (const Linear* linear : linears) {
    known.insert(linear->name);
    const auto found = adapter.modules.find(linear->name);
    if (found == adapter.modules.end()) {
      if (!adapter.config.targets(linear->name)) continue;
      throw FormatError("the adapter", -1,
                        "its config targets " + linear->name + ", but there is no " + key_of(linear->name, "lora_A"));
    }
    const int64_t r = adapter.config.rank_of(linear->name);
    const Shape a_shape{r, linear->weight.columns()}, b_shape{linear->weight.rows(), r};
    const LoraWeights& weights = found->second;
    if (weights.a.shape() != a_shape || weights.b.shape() != b_shape)
      throw FormatError("the adapter", -1,
                        linear->name + ": expected lora_A " + to_string(a_shape) + " and lora_B " + to_string(b_shape) +
                            ", found " + to_string(weights.a.shape()) + " and " + to_string(weights.b.shape()) +
                            "; the adapter was made for another model");
  }
  if (adapter.modules.empty()) throw FormatError("the adapter", -1, "holds no weights");
  for (const auto& module : adapter.modules)
    if (!known.contains(module.first))
      throw FormatError("the adapter", -1,
                        module.first + " is no linear of this model; the adapter was made for another model");
}

}  // namespace

std::vector<Linear*> Transformer::linears() { return linears_of<Linear*>(layers_); }
std::vector<const Linear*> Transformer::linears() const { return linears_of<const Linear*>(layers_); }

std::vector<std::string> Transformer::adapter_names() const {
  std::vector<std::string> names;
  for (const auto& adapter : adapters_) names.push_back(adapter.first);
  return names;
}

const LoraConfig& Transformer::adapter_config(std::string_view name) const {
  const auto found = adapters_.find(name);
  if (found == adapters_.end())
    throw ConfigError("adapter",
                      "the model has no adapter '" + std::string(name) + "'; it has " + listed(adapter_names()));
  return found->second;
}

void Transformer::check_new_name(std::string_view name) const {
  if (name.empty()) throw ConfigError("adapter", "expected a name: an empty one stands for no adapter");
  if (adapters_.contains(name))
    throw ConfigError("adapter", "the model has an adapter '" + std::string(name) + "' already");
}

void Transformer::attach_lora(Linear& linear, uint16_t number, std::string_view name, const LoraConfig& config,
                              Tensor a, Tensor b) {
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
  lora.dropout_stream = number;
  linear.lora.emplace(name, std::move(lora));
}

void Transformer::add_lora(const LoraConfig& config, uint64_t seed, std::string_view name) {
  check_new_name(name);
  uint16_t number = 0;
  bool any = false;
  for (Linear* linear : linears()) {
    ++number;
    if (!config.targets(linear->name)) continue;
    const int64_t r = config.rank_of(linear->name);
    Tensor b = Tensor::zeros({linear->weight.rows(), r}, DType::f32, {}, MemoryTag::adapters);
    attach_lora(*linear, number, name, config, kaiming_uniform(r, linear->weight.columns(), seed, number),
                std::move(b));
    any = true;
  }
  if (!any)
    throw ConfigError("lora_target_modules", "matches no linear of this model; its first is " + linears()[0]->name);
  adapters_.emplace(name, config);
}

void Transformer::load_adapter(const PeftAdapter& adapter, std::string_view name) {
  check_new_name(name);
  check_fits(adapter, std::as_const(*this).linears());
  uint16_t number = 0;
  for (Linear* linear : linears()) {
    ++number;
    const auto found = adapter.modules.find(linear->name);
    if (found == adapter.modules.end()) continue;
    attach_lora(*linear, number, name, adapter.config, master_copy(found->second.a), master_copy(found->second.b));
  }
  adapters_.emplace(name, adapter.config);
}

void Transformer::remove_adapter(std::string_view name) {
  adapter_config(name);  // throws where there is none
  for (Linear* linear : linears())
    if (const auto found = linear->lora.find(name); found != linear->lora.end()) linear->lora.erase(found);
  adapters_.erase(adapters_.find(name));
}

PeftAdapter Transformer::adapter(std::string_view name) const {
  PeftAdapter result;
  result.config = adapter_config(name);
  std::set<std::string> short_names;
  for (const Linear* linear : linears()) {
    const auto found = linear->lora.find(name);
    if (found == linear->lora.end()) continue;
    result.modules[linear->name] = {master_copy(found->second.a.master), master_copy(found->second.b.master)};
    short_names.insert(linear->name.substr(linear->name.rfind('.') + 1));
  }
  // As PEFT saves it: the names that "all-linear" stood for.
  if (result.config.target_modules_regex == "all-linear") {
    result.config.target_modules_regex.reset();
    result.config.target_modules.assign(short_names.begin(), short_names.end());
  }
  return result;
}

std::vector<Parameter> Transformer::trainable_parameters(std::string_view adapter) {
  if (adapters_.empty() && adapter == default_adapter) return weights_;
  adapter_config(adapter);  // throws where there is none
  std::vector<Parameter> parameters;
  for (const Linear* linear : linears()) {
    const auto found = linear->lora.find(adapter);
    if (found == linear->lora.end()) continue;
    parameters.push_back(found->second.a);
    parameters.push_back(found->second.b);
  }
  return parameters;
}

BatchRows Transformer::rows_of(const TokenBatch& batch, const AdapterMode& mode) const {
  BatchRows rows{batch.layout, {}, mode};
  const std::vector<std::string>& names = batch.adapters;
  if (names.empty()) {
    if (adapters_.size() > 1)
      throw ConfigError("adapter", "the model has several (" + listed(adapter_names()) +
                                       "): the batch must say which of them each sequence uses");
    if (!adapters_.empty()) rows.adapters.push_back({adapters_.begin()->first, {}});
    return rows;
  }
  const auto sequences = static_cast<int64_t>(names.size());
  if (sequences != batch.layout.sequences())
    throw ShapeError("a batch of " + std::to_string(batch.layout.sequences()) + " sequences names " +
                     std::to_string(sequences) + " adapters");
  for (int64_t first = 0, last = 0; first < sequences; first = last) {
    const std::string& name = names[static_cast<size_t>(first)];
    while (last < sequences && names[static_cast<size_t>(last)] == name) ++last;
    if (name.empty()) continue;
    adapter_config(name);  // throws where there is none
    if (last - first == sequences) {
      rows.adapters.push_back({name, {}});
    } else {
      rows.adapters.push_back({name, batch.layout.run(first, last)});
    }
  }
  return rows;
}

}  // namespace lathe::nn
