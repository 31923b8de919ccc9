#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/cuda/profiler_range.h"
#include "train/manifest.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char *metrics_name = "metrics.jsonl", *timings_name = "timings.jsonl";

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool holds_a_run(const fs::path& directory) {
  return fs::exists(directory / metrics_name) || !list_checkpoints(directory).empty();
}

void remove_run(const fs::path& directory) {
  fs::remove_all(directory / "completions");
  for (const int64_t step : list_checkpoints(directory)) fs::remove_all(checkpoint_path(directory, step));
  for (const char* name : {metrics_name, timings_name, "report.html", "adapter_config.json",
                           "adapter_model.safetensors", "base_model.json", "model.safetensors"})
    fs::remove(directory / name);
}

}  // namespace

LearningRateSchedule make_schedule(const TrainingSettings& settings, double peak, int64_t total_steps) {
  LearningRateSchedule schedule;
  schedule.schedule = parse_schedule(settings.lr_scheduler_type).value();
  schedule.peak = peak;
  schedule.total_steps = total_steps;
  schedule.warmup_steps =
      settings.warmup_steps > 0
          ? settings.warmup_steps
          : static_cast<int64_t>(std::ceil(settings.warmup_ratio * static_cast<double>(total_steps)));
  return schedule;
}

Trainer::Trainer(const TrainingSettings& settings, Objective& objective, nn::Transformer& model, RunIdentity identity,
                 DataParallel parallel)
    : settings_(settings),
      objective_(objective),
      model_(model),
      identity_(std::move(identity)),
      parallel_(parallel),
      output_dir_(settings.output_dir),
      order_(objective.sources(), settings, objective.updates_per_rows(), objective.rows_per_draw()),
      schedule_(make_schedule(settings, settings.learning_rate.value(), order_.total_steps())),
      optimizer_(model.trainable_parameters(), settings) {
  if (model.dtype() == DType::f16) state_.loss_scale.emplace();
  if (parallel_.is_main_process()) start();
  share_start();
}

// Every process has made the same model; only what a checkpoint changed in it is to be sent.
void Trainer::share_start() {
  parallel_.expect_same("model", identity_.model_fingerprint, "another model");
  parallel_.expect_same("dataset", identity_.data_fingerprint, "other rows");
  state_.step = parallel_.from_main_process(state_.step);
  state_.num_tokens = parallel_.from_main_process(state_.num_tokens);
  if (state_.loss_scale) {
    LossScale& scale = *state_.loss_scale;
    scale.scale = std::ldexp(1.0, static_cast<int>(parallel_.from_main_process(int64_t{std::ilogb(scale.scale)})));
    scale.growth_tracker = parallel_.from_main_process(scale.growth_tracker);
    scale.skipped_steps = parallel_.from_main_process(scale.skipped_steps);
  }
  if (state_.step == 0) return;
  for (nn::Parameter& parameter : optimizer_.parameters()) {
    parallel_.from_main_process(parameter.master);
    if (parameter.start.defined()) parallel_.from_main_process(parameter.start);
    parameter.refresh();
  }
  for (const auto& [name, tensor] : optimizer_.state()) parallel_.from_main_process(tensor);
  objective_.share_state();
}

void Trainer::start() {
  std::error_code error;
  fs::create_directories(output_dir_, error);
  if (error) throw ResourceError("cannot make " + output_dir_.string() + ": " + error.message());
  lock_.emplace(output_dir_);  // before anything in the folder is looked at
  if (!settings_.resume_from_checkpoint.empty()) {
    const fs::path checkpoint = settings_.resume_from_checkpoint;
    resume_from(checkpoint.has_filename() ? checkpoint : checkpoint.parent_path());  // "checkpoint-4/"
  } else if (settings_.resume) {
    const FoundCheckpoint found = find_checkpoint(output_dir_);
    for (const std::string& reason : found.skipped) warnings_.push_back("passed over " + reason);
    if (found.path) {
      resume_from(*found.path);
    } else {
      notes_.push_back("no whole checkpoint to resume from in " + output_dir_.string() +
                       ": starting from the first step");
    }
  } else if (holds_a_run(output_dir_)) {
    if (!settings_.overwrite_output_dir)
      throw ConfigError("output_dir", output_dir_.string() +
                                          " holds a run already; --resume goes on with it, "
                                          "--overwrite_output_dir starts over, or choose another folder");
    remove_run(output_dir_);
  }
  open_logs();
}

void Trainer::open_logs() {
  const fs::path metrics = output_dir_ / metrics_name, timings = output_dir_ / timings_name;
  const LogExtent found = truncate_metrics(metrics, state_.step);
  if (state_.metrics && found != *state_.metrics)
    warnings_.push_back(metrics.string() + " has " + std::to_string(found.lines) + " lines (" +
                        std::to_string(found.bytes) + " bytes) up to step " + std::to_string(state_.step) +
                        ", and the checkpoint counted " + std::to_string(state_.metrics->lines) + " (" +
                        std::to_string(state_.metrics->bytes) +
                        "); the weights are not concerned, but the report will lack what was lost unless you stop "
                        "now, put the file back and resume again");
  metrics_ = std::make_unique<MetricsLog>(metrics, found);
  timings_ = std::make_unique<MetricsLog>(timings, truncate_metrics(timings, state_.step));
}

void Trainer::resume_from(const fs::path& checkpoint) {
  if (const auto broken = broken_part(checkpoint))
    throw FormatError(checkpoint.string(), -1, "is no whole checkpoint: " + *broken);
  const bool scales = state_.loss_scale.has_value();
  state_ = load_checkpoint(checkpoint, optimizer_, objective_, identity_, total_steps());
  if (scales != state_.loss_scale.has_value())
    throw FormatError(
        (checkpoint / "trainer_state.json").string(), -1,
        scales ? "lacks loss_scale, which a run in float16 needs" : "has a loss_scale, and this run is not in float16");
  // Lines of the run that the checkpoint is from are not looked for in another folder.
  std::error_code ignored;
  if (!fs::equivalent(fs::absolute(checkpoint).parent_path(), output_dir_, ignored)) state_.metrics.reset();
  notes_.push_back("going on from " + checkpoint.string() + ", step " + std::to_string(state_.step) + " of " +
                   std::to_string(total_steps()));
}

void Trainer::check_finite(double value, const char* what) const {
  if (std::isfinite(value)) return;
  const std::vector<int64_t> saved = list_checkpoints(output_dir_);
  const auto last = std::upper_bound(saved.begin(), saved.end(), state_.step);
  throw NumericError(
      "step " + std::to_string(state_.step + 1) + ": " + what + " is " + std::to_string(value) +
      ", so training stops before it spoils the weights. " +
      (last == saved.begin()
           ? "There is no checkpoint yet."
           : "The last checkpoint, " + checkpoint_path(output_dir_, *std::prev(last)).string() + ", is good.") +
      " A lower learning_rate or max_grad_norm, more warmup_steps, or dtype " +
      (state_.loss_scale ? "bfloat16 (float16 ends at 65504)" : "float32") + " usually help");
}

// In float16 also what follows of the scale from it.
void Trainer::check_gradient(StepRecord& record) {
  if (state_.loss_scale) {
    LossScale& scale = *state_.loss_scale;
    record.loss_scale = scale.scale;
    record.skipped = !std::isfinite(record.grad_norm) && scale.scale > LossScale::least;
    if (record.skipped || std::isfinite(record.grad_norm)) return scale.update(record.skipped);
  }
  check_finite(record.grad_norm, "the gradient's norm");
}

StepRecord Trainer::step() {
  const auto start = Clock::now();
  const std::vector<int64_t> rows = order_.rows_of_step(state_.step);
  optimizer_.zero_gradients();
  const double loss_scale = state_.loss_scale ? state_.loss_scale->scale : 1.0;
  const QueuedStep queued = objective_.accumulate(rows, state_.step, loss_scale);
  // Another process's part of the loss may not be finite where ours is.
  std::optional<StepOutcome> of_all;
  if (parallel_.several()) check_finite(of_all.emplace(queued.outcome()).loss, "the loss");
  StepRecord record;
  // Skipped steps are none of the optimiser's, nor of the schedule's.
  const int64_t updates = state_.step - (state_.loss_scale ? state_.loss_scale->skipped_steps : 0);
  record.learning_rate = schedule_.rate(updates);
  {
    const kernels::ProfilerRange range("optimizer");
    optimizer_.clip(loss_scale, queued.losses);
    optimizer_.step(updates + 1, record.learning_rate);
  }
  // Everything is queued. What is not finite has changed nothing.
  const StepOutcome outcome = of_all ? *std::move(of_all) : queued.outcome();
  check_finite(outcome.loss, "the loss");
  record.loss = outcome.loss;
  record.tokens = outcome.tokens;
  record.metrics = outcome.metrics;
  record.grad_norm = optimizer_.gradient_norm();
  check_gradient(record);
  record.step = ++state_.step;
  objective_.after_update(record.step);
  state_.num_tokens += outcome.tokens;
  state_.window.add(outcome);
  record.seconds = seconds_since(start);
  seconds_since_log_ += record.seconds;
  tokens_since_log_ += outcome.tokens;

  if (record.step % settings_.logging_steps == 0 || done()) log(record);
  const int64_t every = settings_.eval_steps > 0 ? settings_.eval_steps : order_.steps_per_epoch();
  if (record.step % every == 0 || done()) evaluate(record);
  if ((settings_.save_steps > 0 && record.step % settings_.save_steps == 0) || done()) record.saved = save();
  return record;
}

void Trainer::log(StepRecord& record) {
  if (!parallel_.is_main_process()) return;
  const auto steps = static_cast<double>(state_.window.steps);
  Metrics line = {{"epoch", order_.epoch_after(record.step)}, {"loss", state_.window.loss / steps}};
  if (!record.skipped) line.emplace_back("grad_norm", record.grad_norm);
  line.emplace_back("learning_rate", record.learning_rate);
  line.emplace_back("num_tokens", static_cast<double>(state_.num_tokens));
  if (record.loss_scale) {
    line.emplace_back("loss_scale", *record.loss_scale);
    line.emplace_back("skipped_steps", static_cast<double>(state_.loss_scale->skipped_steps));
  }
  for (const MetricSum& metric : state_.window.metrics)
    line.emplace_back(metric.name, metric.sum / static_cast<double>(metric.steps));
  const Metrics drawn = order_.rows_drawn(record.step);
  line.insert(line.end(), drawn.begin(), drawn.end());
  metrics_->append(record.step, line);
  state_.window = {};
  timings_->append(record.step, {{"tokens_per_second", static_cast<double>(tokens_since_log_) / seconds_since_log_},
                                 {"seconds", seconds_since_log_},
                                 {"data_seconds", objective_.seconds_reading() - seconds_reading_logged_},
                                 {"peak_memory_bytes",
                                  static_cast<double>(allocator_for(model_.device()).stats().total_peak_bytes)}});
  seconds_since_log_ = 0;
  tokens_since_log_ = 0;
  seconds_reading_logged_ = objective_.seconds_reading();
}

void Trainer::evaluate(StepRecord& record) {
  if (!parallel_.is_main_process() && !objective_.evaluates_together()) return;
  const auto start = Clock::now();
  record.evaluation = objective_.evaluate();
  if (record.evaluation.empty() || !parallel_.is_main_process()) return;
  Metrics line = {{"epoch", order_.epoch_after(record.step)}};
  line.insert(line.end(), record.evaluation.begin(), record.evaluation.end());
  metrics_->append(record.step, line);
  timings_->append(record.step, {{"eval_seconds", seconds_since(start)}});
}

fs::path Trainer::save() {
  const fs::path path = checkpoint_path(output_dir_, state_.step);
  if (parallel_.is_main_process()) write_checkpoint(path);
  parallel_.wait_for_all();
  return path;
}

void Trainer::write_checkpoint(const fs::path& path) {
  metrics_->sync();  // a checkpoint counts on the lines before it
  timings_->sync();
  state_.metrics = metrics_->extent();
  save_checkpoint(path, model_, optimizer_, objective_, state_, identity_);
  remove_old_checkpoints(output_dir_, settings_.save_total_limit, state_.step);
}

}  // namespace lathe::train
