// Adapters on the transformer: adding, loading, taking out.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "nn/expert_adapters.h"
#include "nn/joined_lora.h"
#include "nn/layer_layout.h"
#include "nn/transformer.h"
#include "nn/weights/own_weights.h"

namespace lathe::nn {
namespace {

// PEFT's start of an embedding's B, torch's normal_.
Tensor normal(const Shape& shape, uint64_t seed, uint64_t number) {
  Tensor b = Tensor::empty(shape, DType::f32, {}, MemoryTag::adapters);
  RandomStream random(seed, RandomPurpose::init, number);
  for (float& value : b.span<float>()) value = random.normal();
  return b;
}

// A copy in f32, on the cpu.
Tensor master_copy(const Tensor& values) {
  const MemoryTagScope tag(MemoryTag::adapters);
  Tensor copy = Tensor::empty(values.shape(), DType::f32);
  kernels::copy(copy, kernels::moved(values, {}));
  return copy;
}

// [first; second], or beside each other (dimension 1), in f32 on the cpu.
Tensor joined_copy(const Tensor& first, const Tensor& second, int dimension) {
  const int64_t half = first.dim(dimension);
  const Shape shape = dimension == 0 ? Shape{2 * half, first.dim(1)} : Shape{first.dim(0), 2 * half};
  Tensor both = Tensor::empty(shape, DType::f32, {}, MemoryTag::adapters);
  kernels::copy(both.slice(dimension, 0, half), kernels::moved(first, {}));
  kernels::copy(both.slice(dimension, half, 2 * half), kernels::moved(second, {}));
  return both;
}

// Of an adapter with its start beside it: twice the rank with the same scaling, as PEFT converts PiSSA.
LoraConfig with_start_beside(LoraConfig config) {
  const double factor = config.use_rslora ? std::sqrt(2.0) : 2.0;
  config.r *= 2;
  config.lora_alpha *= factor;
  for (auto& pattern : config.rank_pattern) pattern.second *= 2;
  for (auto& pattern : config.alpha_pattern) pattern.second *= factor;
  config.init_lora_weights = "true";
  return config;
}

// The layers of a model that is const or not, in the order of LayerLayout::linears().
template <class LinearPointer, class Layers>
std::vector<LinearPointer> linears_of(Layers& layers) {
  std::vector<LinearPointer> all;
  for (auto& [mixer, feed_forward] : layers) {
    if (auto* attention = std::get_if<AttentionBlock>(&mixer)) {
      for (auto& linear : attention->qkv_proj) all.push_back(&linear);
      all.push_back(&attention->o_proj);
    } else if (auto* convolution = std::get_if<ShortConvBlock>(&mixer)) {
      all.push_back(&convolution->in_proj);
      all.push_back(&convolution->out_proj);
    } else if (auto* mamba = std::get_if<Mamba2Block>(&mixer)) {
      all.push_back(&mamba->in_proj);
      all.push_back(&mamba->out_proj);
    } else {
      auto& delta = std::get<GatedDeltaBlock>(mixer);
      for (auto& linear : delta.in_proj) all.push_back(&linear);
      all.push_back(&delta.out_proj);
    }
    // Experts that are chosen: nn/transformer_expert_adapter.cpp.
    for (auto& linear : feed_forward.gate_up_proj) all.push_back(&linear);
    if (feed_forward.down_proj) all.push_back(&*feed_forward.down_proj);
    if (feed_forward.shared_gate) all.push_back(&*feed_forward.shared_gate);
  }
  return all;
}

[[noreturn]] void wrong_shape(const std::string& module, const std::string& expected, const std::string& found) {
  throw FormatError(
      "the adapter", -1,
      module + ": expected " + expected + ", found " + found + "; the adapter was made for another model");
}

void check_shapes(const std::string& module, const LoraWeights& weights, const LoraConfig& config, int64_t in,
                  int64_t out) {
  const int64_t r = config.rank_of(module);
  const Shape a_shape{r, in}, b_shape{out, r};
  if (weights.a.shape() != a_shape || weights.b.shape() != b_shape)
    wrong_shape(module, "lora_A " + to_string(a_shape) + " and lora_B " + to_string(b_shape),
                to_string(weights.a.shape()) + " and " + to_string(weights.b.shape()));
  if (weights.magnitude.defined() && weights.magnitude.shape() != Shape{out})
    wrong_shape(module, "lora_magnitude_vector " + to_string(Shape{out}), to_string(weights.magnitude.shape()));
}

// Of those linears of experts that the adapter has, which were checked when PEFT's keys were split.
void add_expert_modules(const PeftAdapter& adapter, const ModelConfig& model, std::set<std::string_view>& known) {
  for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer) {
    const ExpertTargets targets = expert_targets(model, adapter.config, layer);
    if (!targets.gate_up && !targets.down) continue;
    const auto add = [&](const LinearShape& linear) {
      const auto found = adapter.modules.find(layer_prefix(layer) + linear.name);
      if (found != adapter.modules.end()) known.insert(found->first);
    };
    for (const ExpertShape& expert : layer_layout(model, layer).experts)
      for (const LinearShape& linear : {expert.gate_proj, expert.up_proj, expert.down_proj}) add(linear);
  }
}

// Everything is checked before anything is attached.
void check_fits(const PeftAdapter& adapter, const ModelConfig& model, const std::vector<const Linear*>& linears) {
  std::set<std::string_view> known;
  const auto check = [&](const std::string& module, int64_t in, int64_t out) {
    const auto found = adapter.modules.find(module);
    if (found != adapter.modules.end()) {
      known.insert(found->first);
      check_shapes(module, found->second, adapter.config, in, out);
    } else if (adapter.config.targets(module)) {
      throw FormatError("the adapter", -1,
                        "its config targets " + module + ", but there is no " + peft_key(module, "lora_A"));
    }
  };
  for (const Linear* linear : linears) check(linear->name, linear->weight.columns(), linear->weight.rows());
  check(std::string(embedding_module), model.vocab_size, model.hidden_size);
  add_expert_modules(adapter, model, known);
  if (adapter.modules.empty() && adapter.saved.empty()) throw FormatError("the adapter", -1, "holds no weights");
  for (const auto& module : adapter.modules)
    if (!known.contains(module.first))
      throw FormatError("the adapter", -1,
                        module.first + " is no linear of this model; the adapter was made for another model");
  const Shape whole{model.vocab_size, model.hidden_size};
  for (const auto& [module, weight] : adapter.saved)
    if (weight.shape() != whole) wrong_shape(module, to_string(whole), to_string(weight.shape()));
}

}  // namespace

std::vector<Linear*> Transformer::linears() { return linears_of<Linear*>(layers_); }
std::vector<const Linear*> Transformer::linears() const { return linears_of<const Linear*>(layers_); }

std::vector<std::string> Transformer::adapter_names() const {
  std::vector<std::string> names;
  for (const auto& adapter : adapters_) names.push_back(adapter.first);
  return names;
}

std::string Transformer::listed_adapters() const {
  std::string list;
  for (const auto& adapter : adapters_) list += (list.empty() ? "" : ", ") + adapter.first;
  return list.empty() ? "none" : list;
}

const Adapter& Transformer::adapter_named(std::string_view name) const {
  const auto found = adapters_.find(name);
  if (found == adapters_.end())
    throw ConfigError("adapter", "the model has no adapter '" + std::string(name) + "'; it has " + listed_adapters());
  return found->second;
}

void Transformer::check_new_name(std::string_view name) const {
  if (name.empty()) throw ConfigError("adapter", "expected a name: an empty one stands for no adapter");
  if (adapters_.contains(name))
    throw ConfigError("adapter", "the model has an adapter '" + std::string(name) + "' already");
}

LoraLayer Transformer::make_lora(std::string_view module, const LoraConfig& config, const LoraWeights& weights) const {
  const bool embedding = module == embedding_module;
  const auto parameter = [&](const char* part, Tensor values, DType dtype) {
    if (options_.dtype == DType::f64) values = kernels::cast(values, DType::f64);
    values = kernels::moved(values, options_.device, MemoryTag::adapters);
    return Parameter::make(peft_key(module, part), std::move(values), dtype);
  };
  LoraLayer lora;
  lora.a = parameter(embedding ? "lora_embedding_A" : "lora_A", weights.a, options_.dtype);
  lora.b = parameter(embedding ? "lora_embedding_B" : "lora_B", weights.b, options_.dtype);
  lora.scaling = static_cast<float>(config.scaling_of(module));
  if (weights.magnitude.defined())  // never rounded to bf16, where small steps of a large number are lost
    lora.magnitude =
        parameter("lora_magnitude_vector", weights.magnitude, options_.dtype == DType::f64 ? DType::f64 : DType::f32);
  return lora;
}

void Transformer::attach_lora(Linear& linear, uint16_t number, std::string_view name, const LoraConfig& config,
                              const LoraWeights& weights, bool from_base) {
  LoraLayer lora = make_lora(linear.name, config, weights);
  if (from_base) {
    const auto copy = [&](const Tensor& master, double factor) {
      Tensor start = Tensor::empty(master.shape(), master.dtype(), master.device(), MemoryTag::adapters);
      kernels::scale(start, master, factor);
      return start;
    };
    lora.a.start = copy(lora.a.master, 1);
    lora.b.start = copy(lora.b.master, -1);
    lora.joined = std::make_shared<JoinedFactors>();
  }
  lora.dropout = static_cast<float>(config.lora_dropout);
  lora.dropout_stream = number;
  if (config.use_dora) {
    lora.norms = std::make_shared<DoraNorms>(linear.weight, options_.dtype);
    if (!lora.magnitude) {
      const Tensor norms = lora.norms->norms(lora.a.leaf.value(), lora.b.leaf.value(), lora.scaling);
      lora.magnitude = make_lora(linear.name, config, {weights.a, weights.b, norms}).magnitude;
    }
    lora.norms->inverse(lora.a.leaf.value(), lora.b.leaf.value(), lora.scaling);  // before any graph is captured
  }
  linear.lora.emplace(name, std::move(lora));
}

// The weight of the embedding or of the output projection in f32 (f64), on the cpu.
Tensor Transformer::own_weight(const std::string& module) const {
  const kernels::Weight& weight =
      module == output_module ? (lm_head_ ? *lm_head_ : *embedding_).value() : embedding_->value();
  return weight_rows(weight, options_.dtype, 0, weight.rows());
}

void Transformer::attach_saved(Adapter& adapter, const std::string& module, const Tensor& weight) {
  const DType wide = options_.dtype == DType::f64 ? DType::f64 : DType::f32;
  const MemoryTagScope tag(MemoryTag::adapters);
  Tensor master = Tensor::empty(weight.shape(), wide);
  kernels::copy(master, kernels::moved(weight, {}));
  adapter.saved.emplace(
      module, Parameter::make(peft_key(module, "weight"), kernels::moved(master, options_.device, MemoryTag::adapters),
                              options_.dtype));
}

// PEFT writes the base's embedding beside an adapter of it; one that was resized or trained would count there.
void Transformer::check_embedding_base(const Tensor& given) const {
  const kernels::Weight& weight = embedding_->value();
  const Shape expected{weight.rows(), weight.columns()};
  if (given.shape() != expected)
    wrong_shape(std::string(embedding_module) + ".base_layer", to_string(expected), to_string(given.shape()));
  const DType wide = options_.dtype == DType::f64 ? DType::f64 : DType::f32;
  const Tensor own = own_weight(std::string(embedding_module)), here = kernels::moved(given, {});
  const Tensor rounded = kernels::cast(kernels::cast(here, options_.dtype), wide);
  const auto differ = [&](auto a, auto b) { return !std::equal(a.begin(), a.end(), b.begin()); };
  if (wide == DType::f64 ? differ(own.span<double>(), rounded.span<double>())
                         : differ(own.span<float>(), rounded.span<float>()))
    throw FormatError("the adapter", -1,
                      std::string(embedding_module) +
                          ".base_layer.weight is another embedding than this model's; the adapter was made for "
                          "another model");
}

void Transformer::add_adapter(std::string_view name, Adapter adapter) {
  const bool brings_head = adapter.saved_module(output_module) != nullptr;
  if (brings_head && adapters_.empty()) adapter_head_.emplace(adapter.saved_module(output_module)->leaf);
  adapters_.emplace(name, std::move(adapter));
  for (Layer& layer : layers_) {
    std::vector<Linear*> of_attention, of_feed_forward;
    if (auto* attention = std::get_if<AttentionBlock>(&layer.mixer))
      for (Linear& linear : attention->qkv_proj) of_attention.push_back(&linear);
    // In the order of their products (nn/feed_forward_block.cpp).
    for (Linear& linear : layer.feed_forward.gate_up_proj) of_feed_forward.insert(of_feed_forward.begin(), &linear);
    lay_together(of_attention, name);
    lay_together(of_feed_forward, name);
  }
}

LoraWeights Transformer::starting_weights(const Linear& linear, uint16_t number, const LoraConfig& config,
                                          const ParsedLoraStart& start, uint64_t seed) const {
  const int64_t r = config.rank_of(linear.name);
  StartingWeights weights;
  if (start.from_base()) {
    if (linear.weight.value().quantized() != nullptr)
      throw ConfigError("init_lora_weights",
                        config.init_lora_weights + " needs the weights as they are, and " + linear.name +
                            " is held as codes; leave load_in_4bit and load_in_8bit out, or begin as gaussian");
    const Tensor base = weight_rows(linear.weight.value(), options_.dtype, 0, linear.weight.rows());
    weights = start_from_base(start, kernels::cast(base, DType::f32), r, config.scaling_of(linear.name), seed, number);
  } else {
    weights = random_start(start.kind, r, linear.weight.columns(), linear.weight.rows(), seed, number);
  }
  return {std::move(weights.a), std::move(weights.b), {}};
}

void Transformer::add_lora(const LoraConfig& config, uint64_t seed, std::string_view name) {
  check_new_name(name);
  check_new_adapter(config_, config);
  const ParsedLoraStart start = parse_lora_start(config.init_lora_weights).value();
  const std::vector<Linear*> all = linears();
  std::vector<LoraWeights> weights(all.size());
  // Every linear by itself: its numbers do not depend on what else is targeted, or on threads.
  const auto make = [&](size_t i) {
    if (config.targets(all[i]->name))
      weights[i] = starting_weights(*all[i], static_cast<uint16_t>(i + 1), config, start, seed);
  };
  if (start.kind == LoraStart::pissa && options_.device.kind == DeviceKind::cpu) {
    parallel_for(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) make(static_cast<size_t>(i));
    });
  } else {
    for (size_t i = 0; i < all.size(); ++i) make(i);
  }
  for (size_t i = 0; i < all.size(); ++i)
    if (weights[i].a.defined())
      attach_lora(*all[i], static_cast<uint16_t>(i + 1), name, config, weights[i], start.from_base());
  attach_expert_lora(name, config, starting_expert_weights(config, start, seed));
  Adapter adapter{config, {}, {}};
  if (config.targets(embedding_module)) {
    const int64_t r = config.rank_of(embedding_module);
    adapter.embedding = make_lora(embedding_module, config,
                                  {Tensor::zeros({r, config_.vocab_size}, DType::f32, {}, MemoryTag::adapters),
                                   normal({config_.hidden_size, r}, seed, 0),
                                   {}});
  }
  for (const std::string& module : config.modules_to_save) attach_saved(adapter, module, own_weight(module));
  add_adapter(name, std::move(adapter));
}

void Transformer::load_adapter(const PeftAdapter& given, std::string_view name) {
  check_new_name(name);
  check_expert_targets(config_, given.config);
  const PeftAdapter adapter = split_expert_adapters(config_.multimodal ? of_text_alone(given) : given, config_);
  check_fits(adapter, config_, std::as_const(*this).linears());
  check_adapter_targets(config_, adapter.config);
  if (adapter.embedding_base.defined()) check_embedding_base(adapter.embedding_base);
  const auto master = [](const LoraWeights& weights) {
    return LoraWeights{master_copy(weights.a), master_copy(weights.b),
                       weights.magnitude.defined() ? master_copy(weights.magnitude) : Tensor()};
  };
  uint16_t number = 0;
  for (Linear* linear : linears()) {
    ++number;
    const auto found = adapter.modules.find(linear->name);
    if (found == adapter.modules.end()) continue;
    attach_lora(*linear, number, name, adapter.config, master(found->second));
  }
  attach_expert_lora(name, adapter.config, adapter.modules);
  Adapter added{adapter.config, {}, {}};
  if (const auto found = adapter.modules.find(std::string(embedding_module)); found != adapter.modules.end())
    added.embedding = make_lora(embedding_module, adapter.config, master(found->second));
  for (const auto& [module, weight] : adapter.saved) attach_saved(added, module, weight);
  add_adapter(name, std::move(added));
}

void Transformer::remove_adapter(std::string_view name) {
  adapter_named(name);  // throws where there is none
  for (Linear* linear : linears())
    if (const auto found = linear->lora.find(name); found != linear->lora.end()) linear->lora.erase(found);
  for (Layer& layer : layers_)
    if (layer.feed_forward.experts)
      for (Expert& expert : layer.feed_forward.experts->experts)
        if (const auto found = expert.lora.find(name); found != expert.lora.end()) expert.lora.erase(found);
  adapters_.erase(adapters_.find(name));
  adapter_head_.reset();
  if (adapters_.size() != 1) return;
  const Parameter* head = adapters_.begin()->second.saved_module(output_module);
  if (head != nullptr) adapter_head_.emplace(head->leaf);
}

PeftAdapter Transformer::adapter(std::string_view name) const {
  const Adapter& held = adapter_named(name);
  PeftAdapter result;
  result.config = held.config;
  const auto masters = [&](const LoraLayer& lora) {
    if (lora.joined) {
      result.config = with_start_beside(held.config);
      return LoraWeights{joined_copy(lora.a.master, lora.a.start, 0), joined_copy(lora.b.master, lora.b.start, 1), {}};
    }
    return LoraWeights{master_copy(lora.a.master), master_copy(lora.b.master),
                       lora.magnitude ? master_copy(lora.magnitude->master) : Tensor()};
  };
  std::set<std::string> short_names;
  for (const Linear* linear : linears()) {
    const auto found = linear->lora.find(name);
    if (found == linear->lora.end()) continue;
    result.modules[linear->name] = masters(found->second);
    short_names.insert(linear->name.substr(linear->name.rfind('.') + 1));
  }
  for (const Layer& layer : layers_) {
    if (!layer.feed_forward.experts) continue;
    for (const Expert& expert : layer.feed_forward.experts->experts) {
      const auto found = expert.lora.find(name);
      if (found == expert.lora.end()) continue;
      const auto add = [&](const Linear& linear, const std::optional<LoraLayer>& lora) {
        if (lora) result.modules[linear.name] = masters(*lora);
      };
      add(expert.gate_proj, found->second.gate);
      add(expert.up_proj, found->second.up);
      add(expert.down_proj, found->second.down);
    }
  }
  if (held.embedding) result.modules[std::string(embedding_module)] = masters(*held.embedding);
  for (const auto& [module, parameter] : held.saved) result.saved[module] = master_copy(parameter.master);
  // As PEFT saves it: the names that "all-linear" stood for.
  if (result.config.target_modules_regex == "all-linear") {
    result.config.target_modules_regex.reset();
    result.config.target_modules.assign(short_names.begin(), short_names.end());
  }
  return stack_expert_adapters(std::move(result), config_);
}

std::vector<Parameter> Transformer::trainable_parameters(std::string_view adapter) {
  if (adapters_.empty() && adapter == default_adapter) return weights_;
  const Adapter& held = adapter_named(adapter);  // throws where there is none
  std::vector<Parameter> parameters;
  const auto add = [&](const LoraLayer& lora) {
    parameters.push_back(lora.a);
    parameters.push_back(lora.b);
    if (lora.magnitude) parameters.push_back(*lora.magnitude);
  };
  for (const Linear* linear : linears())
    if (const auto found = linear->lora.find(adapter); found != linear->lora.end()) add(found->second);
  add_expert_parameters(adapter, parameters);
  if (held.embedding) add(*held.embedding);
  for (const auto& saved : held.saved) parameters.push_back(saved.second);
  return parameters;
}

}  // namespace lathe::nn
