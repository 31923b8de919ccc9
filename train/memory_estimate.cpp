#include "train/memory_estimate.h"

#include <algorithm>
#include <cstdio>
#include <functional>

#include "core/digits.h"
#include "core/error.h"
#include "kernels/adamw/adamw.h"
#include "kernels/cuda/runtime.h"
#include "kernels/gated_delta/gated_delta.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/mamba2/mamba2.h"
#include "kernels/matmul/grouped.h"
#include "nn/adapter.h"
#include "nn/dora.h"
#include "nn/layer_layout.h"
#include "nn/lora_start.h"

namespace lathe::train {
namespace {

std::string mebibytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

std::string millions(int64_t count) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f M", static_cast<double>(count) / 1e6);
  return text;
}

// The elements of each tensor of the adapter.
std::vector<int64_t> lora_elements(const nn::ModelConfig& model, const nn::LoraConfig& lora) {
  std::vector<int64_t> elements;
  for (const Shape& shape : nn::adapter_shapes(model, lora)) elements.push_back(shape.numel());
  return elements;
}

// The optimiser's state of a tensor.
int64_t moments_bytes(int64_t elements, int64_t master, OptimizerKind kind) {
  if (kind == OptimizerKind::sgd) return 0;
  if (kind == OptimizerKind::lion) return elements * master;
  if (kind == OptimizerKind::adamw || elements < kernels::adamw_8bit_least_elements) return 2 * elements * master;
  const int64_t blocks = (elements + kernels::adamw_8bit_block - 1) / kernels::adamw_8bit_block;
  return 2 * (elements + blocks * master);
}

// The CPU multiplies f16 as f32: packed weights are held so, and operands are widened for each product.
bool widens(const RunShape& run) { return run.device.kind == DeviceKind::cpu && run.dtype == DType::f16; }

MemoryLine frozen_weights(const nn::ModelConfig& model, const RunShape& run) {
  const DType held = widens(run) ? DType::f32 : run.dtype;
  const int64_t count = model.parameter_count(), element = size_of(held);
  const std::string type = std::string(name_of(run.dtype)) + (held == run.dtype ? "" : ", held as f32");
  int64_t bytes = count * element, coded = 0;
  if (run.quantization)
    for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer)
      for (const nn::LinearShape& linear : nn::layer_layout(model, layer).linears_and_experts()) {
        const int64_t elements = linear.out * linear.in;
        coded += elements;
        bytes += nn::linear_bytes(linear, held, run.quantization, run.device) - elements * element;
      }
  return {MemoryTag::weights, bytes,
          coded == 0 ? millions(count) + " frozen weights in " + type
                     : millions(coded) + " frozen weights in " + nn::name_of(*run.quantization) + ", " +
                           millions(count - coded) + " in " + type};
}

const char* optimizer_state(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::adamw: return "AdamW's two moments";
    case OptimizerKind::adamw_8bit: return "AdamW's two moments in 8 bits";
    case OptimizerKind::lion: return "Lion's moment";
    default: return "SGD keeps none";
  }
}

// And not adapted.
bool experts_are_frozen(const nn::LoraConfig* lora) { return lora != nullptr && lora->target_parameters.empty(); }

// Whether nobody waits for what routers choose (nn/experts.h).
bool experts_stay_on_device(const nn::ModelConfig& model, const nn::LoraConfig* lora, const RunShape& run) {
  return model.experts.num_experts > 0 && run.device.kind != DeviceKind::cpu && size_of(run.dtype) == 2 &&
         experts_are_frozen(lora);
}

// Of a token's rows in a mixture, what experts save: gate, up and what comes out. Those that train, or whose adapters
// do, need what goes in, too.
int64_t expert_elements(const nn::ModelConfig& model, bool frozen) {
  const nn::ExpertsConfig& experts = model.experts;
  return experts.num_experts +
         experts.num_experts_per_tok * (2 * experts.intermediate_size + (frozen ? 1 : 2) * model.hidden_size);
}

// And the one that all tokens share: gate, up and, where it has a gate, what comes out.
int64_t shared_expert_elements(const nn::ModelConfig& model) {
  const nn::SharedExpertConfig& shared = model.experts.shared;
  return 2 * shared.intermediate_size + (shared.gated ? model.hidden_size + 1 : 0);
}

// q, k, v, attention's output, and its gate and what it gates; what goes into a short convolution and comes out of it;
// of a gated delta net the rows before and after its convolution, a, b, z, and what comes out of it before and after
// the norm; of Mamba-2 what in_proj makes, as one and cut into its parts, the rows behind the convolution, and what
// comes out of it before and after its gate.
int64_t mixer_elements(const nn::ModelConfig& model, nn::Mixer mixer) {
  const int64_t q = model.num_attention_heads * model.head_dim, k = model.num_key_value_heads * model.head_dim;
  const nn::GatedDeltaConfig& delta = model.gated_delta;
  switch (mixer) {
    case nn::Mixer::short_conv: return 4 * model.hidden_size;
    case nn::Mixer::gated_delta:
      return 2 * delta.heads.qkv_columns() + 2 * delta.heads.value_heads + 3 * delta.heads.out_columns();
    case nn::Mixer::mamba2: {
      const kernels::Mamba2Heads& heads = model.mamba2.heads;
      return 2 * heads.xbc_columns() + heads.heads + 3 * heads.out_columns();
    }
    default: return (model.attention_gate ? 3 : 2) * q + 2 * k;
  }
}

// What the operations of one layer save for the backward, in elements for each token: the inputs of the norms (from
// which the inputs of q, k, v, gate and up are made again), what its mixer saves, gate and up.
int64_t saved_elements(const nn::ModelConfig& model, int64_t index, bool experts_frozen) {
  const nn::LayerLayout layer = nn::layer_layout(model, index);
  const int64_t q = model.num_attention_heads * model.head_dim, k = model.num_key_value_heads * model.head_dim;
  const auto size_of_norm = [](const std::optional<nn::NormShape>& norm) { return norm ? norm->size : 0; };
  const int64_t norms = size_of_norm(layer.input_norm) + size_of_norm(layer.feed_forward_norm) +
                        size_of_norm(layer.attention_output_norm) + size_of_norm(layer.feed_forward_output_norm) +
                        (layer.q_norm ? q : 0) + (layer.k_norm ? k : 0);
  const int64_t feed_forward = layer.router ? expert_elements(model, experts_frozen) + shared_expert_elements(model)
                                            : 2 * model.intermediate_size;
  return norms + mixer_elements(model, model.layers[static_cast<size_t>(index)].mixer) + feed_forward;
}

// DoRA's products, whose gradient by the magnitudes wants them: a number for each row of a weight.
int64_t dora_elements(const nn::ModelConfig& model, const nn::LoraConfig& lora, int64_t layer) {
  int64_t elements = 0;
  for (const nn::LinearShape& linear : nn::layer_layout(model, layer).linears())
    if (lora.use_dora && lora.targets(nn::layer_prefix(layer) + linear.name)) elements += linear.out;
  return elements;
}

// What DoRA keeps beside its magnitudes.
int64_t norms_bytes(const nn::ModelConfig& model, const nn::LoraConfig& lora, DType dtype) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer)
    bytes += nn::DoraNorms::bytes(dora_elements(model, lora, layer), dtype);
  return bytes;
}

struct SavedElements {
  int64_t all_layers = 0, largest_layer = 0;
};
SavedElements saved_elements(const nn::ModelConfig& model, const nn::LoraConfig* lora) {
  const bool frozen = experts_are_frozen(lora);
  SavedElements saved;
  for (int64_t i = 0; i < model.num_hidden_layers(); ++i) {
    const int64_t layer = saved_elements(model, i, frozen) + (lora != nullptr ? dora_elements(model, *lora, i) : 0);
    saved.all_layers += layer;
    saved.largest_layer = std::max(saved.largest_layer, layer);
  }
  return saved;
}

// The largest moment inside a layer's forward or backward: gate, up, their product and the gradients of all three. A
// layer that is computed again has its own of them among what it saves.
int64_t dense_transient_elements(const nn::ModelConfig& m, int64_t intermediate_size, bool recomputed) {
  return recomputed ? 3 * intermediate_size + 2 * m.hidden_size : 6 * intermediate_size + 4 * m.hidden_size;
}

// In a mixture on a device gradients take the place of what was saved, but for their product's. Where the host puts
// experts together, what goes to them and what each gives lies beside the whole. A shared expert's own moment comes
// after theirs, beside what they gave.
int64_t mixture_transient_elements(const nn::ModelConfig& m, bool recomputed, bool on_device) {
  const int64_t k = m.experts.num_experts_per_tok, shared = m.experts.shared.intermediate_size;
  const int64_t chosen =
      on_device ? k * m.experts.intermediate_size + (recomputed ? 2 : 4) * m.hidden_size : (2 * k + 3) * m.hidden_size;
  return shared == 0 ? chosen : std::max(chosen, m.hidden_size + dense_transient_elements(m, shared, recomputed));
}

int64_t transient_elements(const nn::ModelConfig& m, bool recomputed, bool experts_on_device = false) {
  int64_t largest = 0;
  for (const nn::LayerConfig& layer : m.layers)
    largest = std::max(largest, layer.experts ? mixture_transient_elements(m, recomputed, experts_on_device)
                                              : dense_transient_elements(m, m.intermediate_size, recomputed));
  return largest;
}

int64_t largest_linear(const nn::ModelConfig& model, bool experts_on_device = false) {
  int64_t largest = 0;
  for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer) {
    const nn::LayerLayout layout = nn::layer_layout(model, layer);
    for (const nn::LinearShape& linear : experts_on_device ? layout.linears() : layout.linears_and_experts())
      largest = std::max(largest, linear.out * linear.in);
  }
  return largest;
}

// Of a mixture's weights in codes that stays on the device.
int64_t experts_band(const nn::ModelConfig& model, DType dtype) {
  const int64_t count = model.experts.num_experts, inner = model.experts.intermediate_size;
  return std::max(kernels::grouped_workspace_bytes({2, count, inner, model.hidden_size, dtype}),
                  kernels::grouped_workspace_bytes({1, count, model.hidden_size, inner, dtype}));
}

// What is alive in a part of a step beside what all of it keeps.
struct StepPhase {
  int64_t activation_bytes = 0, workspace_bytes = 0;
  std::string workspace;
  int64_t bytes() const { return activation_bytes + workspace_bytes; }
};

// Logits are gone before the layers' backward begins, so that the peak is in one of the two.
struct StepPhases {
  int64_t kept_bytes = 0;  // from the forward to the backward of each layer
  StepPhase loss, layer;
  const StepPhase& peak() const { return loss.bytes() > layer.bytes() ? loss : layer; }
  const StepPhase& other() const { return loss.bytes() > layer.bytes() ? layer : loss; }
};

// Of its backward, as if all tokens were of one sequence.
int64_t recurrence_workspace_bytes(const nn::ModelConfig& model, const RunShape& run) {
  if (model.layers_with(nn::Mixer::gated_delta) > 0)
    return kernels::gated_delta_workspace_bytes(model.gated_delta.heads, run.forward_tokens);
  if (model.layers_with(nn::Mixer::mamba2) > 0)
    return kernels::mamba2_workspace_bytes(model.mamba2.heads, run.forward_tokens);
  return 0;
}

StepPhases step_phases(const nn::ModelConfig& model, const nn::LoraConfig* lora, const RunShape& run) {
  const int64_t element = size_of(run.dtype), row = run.forward_tokens * element;
  const bool on_cpu = run.device.kind == DeviceKind::cpu;
  const bool experts_on_device = experts_stay_on_device(model, lora, run);
  const SavedElements saved = saved_elements(model, lora);
  StepPhases phases;
  phases.kept_bytes =
      row * (run.gradient_checkpointing ? model.num_hidden_layers() * model.hidden_size : saved.all_layers);
  // Its hidden states, as they were normed, and their gradient.
  phases.loss.activation_bytes = row * 3 * model.hidden_size;
  // Gradients take the logits' place. The rows of labelled tokens and their gradients lie beside them, on the CPU
  // panels of the products, and on devices a pair of f32 for each 64 logits.
  const int64_t chunk = std::min(run.forward_tokens, on_cpu ? kernels::cross_entropy_chunk
                                                            : kernels::cross_entropy_device_chunk(model.hidden_size));
  const int64_t beside_logits = on_cpu ? model.vocab_size : model.vocab_size / 8;
  phases.loss.workspace_bytes = chunk * (4 * model.vocab_size + beside_logits + 2 * model.hidden_size * element);
  phases.loss.workspace = "logits of " + std::to_string(chunk) + " tokens";
  phases.layer.activation_bytes = row * (transient_elements(model, run.gradient_checkpointing, experts_on_device) +
                                         (run.gradient_checkpointing ? saved.largest_layer : 0));
  // On the CPU products read codes in panels; a device dequantises one weight at a time for those of many rows, and a
  // band of a mixture's.
  if (run.quantization && !on_cpu) {
    const int64_t linear = largest_linear(model, experts_on_device) * element,
                  band = experts_on_device ? experts_band(model, run.dtype) : 0;
    phases.layer.workspace_bytes = std::max(linear, band);
    phases.layer.workspace = band > linear ? "a band of experts dequantised" : "one linear dequantised";
  }
  if (const int64_t delta = recurrence_workspace_bytes(model, run); delta > phases.layer.workspace_bytes) {
    phases.layer.workspace_bytes = delta;
    phases.layer.workspace = std::string("states of ") +
                             (model.layers_with(nn::Mixer::mamba2) > 0 ? "Mamba-2" : "a gated delta net") + " within " +
                             std::to_string(run.forward_tokens) + " tokens";
  }
  return phases;
}

// Measured (scripts/memory-table) beside a tokenizer of 49,152 tokens, which is most of it.
int64_t process_bytes(int64_t vocab_size) { return (8 << 20) + vocab_size * 256; }

}  // namespace

int64_t largest_cache(int64_t total) { return std::max<int64_t>(16 << 20, total / 8); }

int64_t MemoryEstimate::total_bytes() const {
  int64_t total = 0;
  for (const MemoryLine& line : lines) total += line.bytes;
  return total;
}

std::string MemoryEstimate::table() const {
  std::string text;
  char row[160];
  for (const MemoryLine& line : lines) {
    std::snprintf(row, sizeof row, "  %-12s %12s  %s\n", std::string(name_of(line.tag)).c_str(),
                  mebibytes(line.bytes).c_str(), line.reason.c_str());
    text += row;
  }
  std::snprintf(row, sizeof row, "  %-12s %12s\n", "total", mebibytes(total_bytes()).c_str());
  return text + row;
}

MemoryEstimate estimate_memory(const nn::ModelConfig& model, const nn::LoraConfig* lora, const RunShape& run) {
  const int64_t element = size_of(run.dtype), master = run.dtype == DType::f64 ? 8 : 4;
  const int64_t weights = model.parameter_count();
  const std::string type(name_of(run.dtype));
  // Of a whole model, the norms are few enough to count them with the matrices.
  const std::vector<int64_t> tensors = lora != nullptr ? lora_elements(model, *lora) : std::vector<int64_t>{weights};
  int64_t trained = 0, moments_total = 0;
  for (const int64_t elements : tensors) {
    trained += elements;
    moments_total += moments_bytes(elements, master, run.optimizer);
  }
  const int64_t copies = master + (element == master ? 0 : element);
  MemoryEstimate estimate;
  if (lora != nullptr) estimate.lines.push_back(frozen_weights(model, run));
  estimate.lines.push_back(
      {lora != nullptr ? MemoryTag::adapters : MemoryTag::weights, trained * copies,
       millions(trained) + " trained, masters" + (element == master ? "" : " and copies in " + type)});
  if (lora != nullptr && lora->use_dora)
    estimate.lines.push_back({MemoryTag::adapters, norms_bytes(model, *lora, run.dtype), "DoRA's norms"});
  // The start's masters, and both joined for products (nn/linear.h).
  if (run.new_adapter && lora != nullptr && nn::parse_lora_start(lora->init_lora_weights)->from_base())
    estimate.lines.push_back(
        {MemoryTag::adapters, trained * (master + 2 * element), "what they began as, and both for products"});
  estimate.lines.push_back({MemoryTag::gradients, trained * master, "one for each trained"});
  estimate.lines.push_back({MemoryTag::optimizer, moments_total, optimizer_state(run.optimizer)});
  if (run.reference == FollowsTheModel::no) {
    estimate.lines.push_back(frozen_weights(model, run));
    estimate.lines.back().reason += ", the reference";
  } else if (run.reference) {
    estimate.lines.push_back(
        {MemoryTag::weights, weights * copies,
         millions(weights) + " of the reference, masters" + (element == master ? "" : " and copies")});
  }
  const bool on_cpu = run.device.kind == DeviceKind::cpu;
  const StepPhases phases = step_phases(model, lora, run);
  const StepPhase& peak = phases.peak();
  estimate.lines.push_back({MemoryTag::activations, phases.kept_bytes + peak.activation_bytes,
                            std::to_string(run.forward_tokens) + " tokens in a forward" +
                                (run.gradient_checkpointing ? ", layers recomputed" : "")});
  if (peak.workspace_bytes > 0) estimate.lines.push_back({MemoryTag::workspace, peak.workspace_bytes, peak.workspace});
  if (widens(run)) {
    const int64_t dense = lora == nullptr || run.quantization ? largest_linear(model) : 0;
    estimate.lines.push_back({MemoryTag::workspace,
                              (dense + run.forward_tokens * (model.hidden_size + 2 * model.intermediate_size)) * 4,
                              "a product's operands as f32"});
  }
  // What the CPU's cache fills with: the adapter as it was made, what a layer needed for a moment, and what the other
  // phase did.
  const int64_t passing = (lora != nullptr ? trained * master : 0) +
                          2 * run.forward_tokens * transient_elements(model, false) + phases.other().bytes();
  const int64_t cache = largest_cache(estimate.total_bytes());
  estimate.lines.push_back(
      {MemoryTag::other, on_cpu ? std::min(cache, passing) : cache, "freed blocks kept for reuse"});
  if (on_cpu)
    estimate.lines.push_back(
        {MemoryTag::other, process_bytes(model.vocab_size), "the program, its tokenizer and rows"});
  return estimate;
}

std::string ParameterCounts::text() const {
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.4f", 100.0 * static_cast<double>(trainable) / static_cast<double>(all));
  return "trainable params: " + grouped_digits(trainable) + " || all params: " + grouped_digits(all) +
         " || trainable%: " + percent;
}

ParameterCounts trainable_parameters(const nn::ModelConfig& model, const nn::LoraConfig* lora) {
  const int64_t base = model.parameter_count();
  if (lora == nullptr) return {base, base};
  int64_t adapter = 0;
  for (const int64_t elements : lora_elements(model, *lora)) adapter += elements;
  return {adapter, base + adapter};
}

int64_t largest_forward_tokens(const TrainingSet& set, const TrainingSettings& config) {
  int64_t tokens = set.tokens_of_longest_rows(config.per_device_train_batch_size);
  if (config.max_tokens_per_forward > 0)
    tokens = std::min(tokens, std::max(config.max_tokens_per_forward, set.longest_sequence()));
  return tokens;
}

std::string lack_of_memory(const MemoryEstimate& estimate, Device device) {
  const bool on_cpu = device.kind == DeviceKind::cpu;
  const int64_t free_bytes = kernels::free_memory_bytes(device);
  if (estimate.total_bytes() <= free_bytes) return "";
  return "this run needs about " + mebibytes(estimate.total_bytes()) + " and " +
         (on_cpu ? "this machine" : to_string(device)) + " has " + mebibytes(free_bytes) + " free:\n" +
         estimate.table() +
         "Less is needed with load_in_4bit, a lower max_tokens_per_forward, max_length or lora_r, with "
         "gradient_checkpointing, optim adamw_8bit or dtype bfloat16";
}

void expect_fits(const MemoryEstimate& estimate, Device device) {
  if (const std::string lack = lack_of_memory(estimate, device); !lack.empty()) throw ResourceError(lack);
}

}  // namespace lathe::train
