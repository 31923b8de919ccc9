// lathe-bench train: LoRA steps of one model on rows of random tokens, half of each labelled, as lathe-train sft runs
// them: on a device as a graph from the third on. There --profile lists what a step queues, operation by operation.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/variable.h"
#include "bench/kernels/ceilings.h"
#include "bench/model/model.h"
#include "bench/model/profile.h"
#include "core/json_value.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/simd/isa.h"
#include "nn/attention_context.h"
#include "nn/layer_layout.h"
#include "nn/model_files.h"
#include "nn/transformer.h"
#include "programs/cli/program.h"
#include "train/optimizer.h"
#include "train/step_graphs.h"

namespace lathe::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct TrainBenchOptions {
  cli::CommonOptions common;
  std::string model, dtype = "auto";
  bool load_in_4bit = false, load_in_8bit = false, profile = false, cuda_graphs = true;
  int64_t rows = 8, row_tokens = 64, lora_r = 16, steps = 5;
};

// Labels: of the second half of each row, without its last token.
train::MicroBatch random_batch(const TrainBenchOptions& options, int64_t vocab_size) {
  RandomStream random(1, RandomPurpose::test);
  std::vector<int32_t> ids, labels;
  for (int64_t row = 0; row < options.rows; ++row)
    for (int64_t i = 0; i < options.row_tokens; ++i)
      ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab_size))));
  train::MicroBatch batch;
  for (int64_t i = 0; i < std::ssize(ids); ++i) {
    const int64_t place = i % options.row_tokens;
    const bool labelled = place >= options.row_tokens / 2 && place + 1 < options.row_tokens;
    labels.push_back(labelled ? ids[static_cast<size_t>(i) + 1] : kernels::ignored_label);
  }
  const std::vector<int32_t> lengths(static_cast<size_t>(options.rows), static_cast<int32_t>(options.row_tokens));
  batch.tokens = nn::make_token_batch(ids, lengths);
  batch.labels = Tensor::of(std::span<const int32_t>(labels), Shape{std::ssize(labels)});
  return batch;
}

// Of a step's products: each linear forward and back to its input, A and B with their gradients, the output projection
// where there is a label. Attention is left out, so that the share of the peak is rather too low.
double step_flops(const nn::ModelConfig& config, const TrainBenchOptions& options, int64_t labelled) {
  double each = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers(); ++layer)
    for (const nn::LinearShape& linear : nn::layer_layout(config, layer).linears())
      each += 4.0 * static_cast<double>(linear.in * linear.out) +
              6.0 * static_cast<double>(options.lora_r * (linear.in + linear.out));
  return each * static_cast<double>(options.rows * options.row_tokens) +
         4.0 * static_cast<double>(labelled * config.hidden_size * config.vocab_size);
}

class Steps {
 public:
  Steps(nn::Transformer& model, const train::MicroBatch& batch, bool checkpoint_layers, bool graphs)
      : model_(model), batch_(batch), optimizer_(model.trainable_parameters(), train::TrainingSettings{}) {
    forward_.checkpoint_layers = checkpoint_layers;
    forward_.adapter.training = true;
    if (graphs) graphs_.emplace(model.device(), model.trainable_parameters());
  }

  void step() {
    optimizer_.zero_gradients();
    const double scale = 1.0 / static_cast<double>(batch_.labelled());
    if (graphs_) {
      train::StepNumbers numbers(scale, 0);
      numbers.add(batch_);
      graphs_->run(numbers, [&](train::StoredNumbers* stored) { accumulate(scale, stored); });
    } else {
      accumulate(scale, nullptr);
    }
    optimizer_.clip(1);
    optimizer_.step(++done_, 1e-4);
    kernels::synchronize(model_.device());
  }

  int64_t replayed() const { return graphs_ ? graphs_->counts().replayed : 0; }

 private:
  void accumulate(double scale, train::StoredNumbers* stored) const {
    const train::ForwardInputs inputs = train::inputs_of(batch_, stored);
    const autograd::SequenceLayout& layout = inputs.tokens.layout;
    nn::PackedAttention attention(model_.config(), layout);
    const autograd::Variable hidden = model_.forward(inputs.tokens, attention, forward_);
    autograd::backward(autograd::linear_cross_entropy(hidden, model_.output_weight(), inputs.labels, layout, scale,
                                                      model_.softcap(), autograd::LossValue::left_out, inputs.labelled)
                           .loss);
  }

  const nn::Transformer& model_;
  const train::MicroBatch& batch_;
  nn::ForwardOptions forward_;
  train::Optimizer optimizer_;
  std::optional<train::StepGraphs> graphs_;
  int64_t done_ = 0;
};

void run(const TrainBenchOptions& options) {
  const Device device = options.common.parsed_device();
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const nn::ModelFiles files = nn::open_model_files(options.model);
  nn::TransformerOptions transformer;
  transformer.dtype = nn::parse_compute_dtype(options.dtype, device);
  transformer.device = device;
  transformer.quantized_linears =
      nn::resolved_quantization(files, nn::quantization_of(options.load_in_4bit, options.load_in_8bit, false));
  nn::Transformer model(files.config, *files.weights, transformer);
  nn::LoraConfig lora;
  lora.r = options.lora_r, lora.lora_alpha = 2.0 * static_cast<double>(options.lora_r);
  lora.target_modules_regex = "all-linear";
  model.add_lora(lora, 1);
  const train::MicroBatch batch = random_batch(options, files.config.vocab_size);
  // Layers are computed again where lathe-train's default is that. A step that is replayed has no operations to list.
  Steps steps(
      model, batch, transformer.quantized_linears.has_value(),
      options.cuda_graphs && !options.profile && device.kind != DeviceKind::cpu && !model.asks_the_host_in_training());

  const double peak = device.kind == DeviceKind::cpu ? measure_peak_flops(model.dtype())
                                                     : measure_device_ceilings(device).flops(model.dtype());
  steps.step();
  std::optional<autograd::OperationTimes> times;
  if (options.profile) times.emplace();
  std::vector<double> seconds;
  double total = 0;
  for (int64_t i = 0; i < options.steps; ++i) {
    const auto start = Clock::now();
    steps.step();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    total += seconds.back();
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double rate = static_cast<double>(options.rows * options.row_tokens) / median;
  const double share = step_flops(files.config, options, batch.labelled()) / median / peak;
  if (options.common.json) {
    nlohmann::ordered_json result = {{"model", options.model},
                                     {"device", kernels::device_name(device)},
                                     {"isa", kernels::name_of(kernels::active_isa())},
                                     {"threads", thread_count()},
                                     {"dtype", name_of(model.dtype())},
                                     {"tokens_per_step", options.rows * options.row_tokens},
                                     {"tokens_per_second", rate},
                                     {"share_of_peak", share},
                                     {"replayed_steps", steps.replayed()}};
    if (times) result["operations"] = profile_json(*times);
    if (times && device.kind != DeviceKind::cpu) result["device_work"] = device_work_json(*times);
    fmt::print("{}\n", result.dump(2));
    return;
  }
  fmt::print("{:.1f} tokens/s in {}, the products' share of the peak {:.0f} %\n", rate, name_of(model.dtype()),
             100 * share);
  if (steps.replayed() > 0) fmt::print("{} of {} steps replayed as a graph\n", steps.replayed(), options.steps);
  if (!times) return;
  fmt::print("{} steps{}:\n{}", options.steps, device.kind == DeviceKind::cpu ? "" : ", the host's time",
             profile_table(*times, total));
  if (device.kind != DeviceKind::cpu) fmt::print("{}", device_work_table(*times, options.steps));
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainBenchOptions>();
  CLI::App* command = app.add_subcommand("train", "Tokens a second of LoRA steps, and where their time goes");
  command
      ->add_option("MODEL", options->model,
                   ".gguf file, Hugging Face directory, or ORG/NAME that lathe-model pull has fetched")
      ->required();
  command->add_option("--dtype", options->dtype, "auto (bf16 where the device multiplies it, else f32), f32 or bf16")
      ->capture_default_str();
  command->add_flag("--load_in_4bit", options->load_in_4bit, "the layers' linears as 4-bit codes (nf4)");
  command->add_flag("--load_in_8bit", options->load_in_8bit, "the layers' linears as 8-bit integers with scales");
  const auto count = [&](const char* name, int64_t& value, const char* help) {
    command->add_option(name, value, help)->check(CLI::PositiveNumber)->capture_default_str();
  };
  count("--rows", options->rows, "rows of a step");
  count("--row_tokens", options->row_tokens, "tokens of a row, the second half labelled");
  count("--lora_r", options->lora_r, "rank of the adapter on every linear");
  count("--steps", options->steps, "steps after one that warms up; the median counts");
  command->add_flag("--profile", options->profile,
                    "print the time by operation, and what each queues on a device, where no step is replayed then");
  command->add_option("--cuda_graphs", options->cuda_graphs, "on a device, replay steps as a graph from the third on")
      ->capture_default_str();
  cli::add_common_options(*command, options->common);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::bench
