#include "train/dpo/dpo_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <vector>

namespace lathe::train {
namespace {

Fields dpo_fields(DpoSettings& s) {
  constexpr auto data = Group::model_and_data;
  constexpr auto group = Group::optimisation;
  constexpr auto result = Shapes::result;
  constexpr auto several = Values::several;
  return {
      {"max_length", data, "tokens of a prompt with a completion; what is longer is truncated", result, &s.max_length},
      {"truncation_mode", data, "what a longer sequence keeps: keep_start or keep_end", result, &s.truncation_mode},
      {"loss_type", group, "one or several, which are added: " + preference_loss_names(), result, &s.loss_type,
       several},
      {"loss_weights", group, "a number for each loss_type (default: 1 each)", result, &s.loss_weights, several},
      {"beta", group, "how strongly the model is held to the reference", result, &s.beta},
      {"label_smoothing", group,
       "share of rows whose chosen and rejected are the wrong way round: of robust, exo_pair, aot, aot_unpaired",
       result, &s.label_smoothing},
      {"f_divergence_type", group,
       "how distance from the reference is measured: reverse_kl, forward_kl, js_divergence or alpha_divergence", result,
       &s.f_divergence_type},
      {"f_alpha_divergence_coef", group, "alpha of alpha_divergence", result, &s.f_alpha_divergence_coef},
      {"discopop_tau", group, "temperature of discopop", result, &s.discopop_tau},
      {"ld_alpha", group,
       "weight of what a completion has beyond the length of the shorter of the two, from 0 to 1 (default: 1)", result,
       &s.ld_alpha},
      {"use_weighting", group, "weigh each row by how likely its completions are to the model (WPO)", result,
       &s.use_weighting},
      {"streaming", Group::model_and_data,
       "read rows in their order as steps ask for them, from a pipe, - or a file larger than memory (needs max_steps)",
       result, &s.streaming},
      {"disable_dropout", group, "train without dropout, whatever lora_dropout is", result, &s.disable_dropout},
      {"precompute_ref_log_probs", Group::memory,
       "compute the reference's log-probabilities of all rows before the first step, and keep them in output_dir "
       "(false: of each row when it first comes; with use_peft false always before)",
       Shapes::run, &s.precompute_ref_log_probs},
  };
}

// A row there is a pair of sequences.
Fields training_fields_of(DpoConfig& c) {
  Fields fields = training_fields(c, "1e-6; adapters usually want 5e-6 or more");
  for (Field& field : fields)
    if (field.name == "per_device_train_batch_size")
      field.help = "rows of a micro-batch, each a chosen and a rejected sequence";
  return fields;
}

std::optional<double> number_of(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc{} && result.ptr == end && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

void check_losses(const DpoConfig& c, Complaints& wrong) {
  const std::vector<std::string> names = list_parts(c.loss_type), weights = list_parts(c.loss_weights);
  wrong.require(!names.empty(), "loss_type", "is empty: name one or more of " + preference_loss_names());
  wrong.require(!c.use_weighting || std::none_of(names.begin(), names.end(),
                                                 [](const std::string& name) {
                                                   return one_of(name, {"aot", "aot_unpaired", "sft"});
                                                 }),
                "use_weighting", "does not go with aot, aot_unpaired and sft: a pair has no loss of its own there");
  bool smooths = false;
  for (const std::string& name : names) {
    const std::optional<PreferenceLoss> loss = parse_preference_loss(name);
    if (!loss) {
      wrong.add("loss_type", "unknown loss type '" + name + "'; should be one of " + preference_loss_names());
      continue;
    }
    smooths |= takes_label_smoothing(*loss);
    wrong.require(c.f_divergence_type == "reverse_kl" || takes_f_divergence(*loss), "f_divergence_type",
                  c.f_divergence_type +
                      " is only supported for the loss types sigmoid, sigmoid_norm, hinge, ipo, "
                      "exo_pair, robust, discopop and sft; " +
                      name + " needs reverse_kl");
    wrong.require(*loss != PreferenceLoss::exo_pair || c.label_smoothing > 0, "label_smoothing",
                  "must be greater than 0 with the loss type exo_pair, found " + std::to_string(c.label_smoothing) +
                      "; the EXO paper recommends 1e-3");
    wrong.require(*loss != PreferenceLoss::robust || c.label_smoothing < 0.5, "label_smoothing",
                  "should lie in [0.0, 0.5) for the loss type robust, found " + std::to_string(c.label_smoothing));
  }
  wrong.require(c.label_smoothing == 0 || smooths, "label_smoothing",
                "has no use with loss_type " + c.loss_type +
                    "; robust is sigmoid with it, and exo_pair, aot and aot_unpaired take it, too");
  wrong.require(weights.empty() || weights.size() == names.size(), "loss_weights",
                "must have the same length as loss_type when combining multiple losses: found " +
                    std::to_string(weights.size()) + " weights for " + std::to_string(names.size()) + " loss types");
  for (const std::string& weight : weights)
    wrong.require(number_of(weight).has_value(), "loss_weights", "expected a number, found '" + weight + "'");
}

void check_dpo(const DpoConfig& c, Complaints& wrong) {
  wrong.require(c.max_length >= 2 && c.max_length <= 262144, "max_length",
                "must be from 2 to 262144, found " + std::to_string(c.max_length));
  wrong.require(one_of(c.truncation_mode, {"keep_start", "keep_end"}), "truncation_mode",
                "'" + c.truncation_mode + "' is neither keep_start nor keep_end");
  wrong.require(c.beta > 0 && std::isfinite(c.beta), "beta", "must be above 0, found " + std::to_string(c.beta));
  wrong.require_below_one("label_smoothing", c.label_smoothing);
  wrong.require(parse_f_divergence(c.f_divergence_type).has_value(), "f_divergence_type",
                "'" + c.f_divergence_type + "' is none of reverse_kl, forward_kl, js_divergence, alpha_divergence");
  wrong.require(std::isfinite(c.f_alpha_divergence_coef), "f_alpha_divergence_coef", "must be a number");
  wrong.require(c.discopop_tau > 0 && std::isfinite(c.discopop_tau), "discopop_tau", "must be above 0");
  wrong.require(!c.ld_alpha || (*c.ld_alpha >= 0 && *c.ld_alpha <= 1), "ld_alpha", "must be from 0 to 1");
  wrong.require(!c.sync_ref_model || !c.precompute_ref_log_probs, "precompute_ref_log_probs",
                "does not go with sync_ref_model, which changes the reference while training");
  wrong.require(!c.streaming || c.max_steps > 0, "streaming", "needs max_steps: nobody knows how many rows there are");
  wrong.require(!c.streaming || !c.precompute_ref_log_probs, "precompute_ref_log_probs",
                "does not go with streaming: the rows are not there before the first step");
  wrong.require(!c.streaming || c.sync_ref_model || (c.use_peft && c.lora_modules_to_save.empty()), "streaming",
                "needs an adapter without lora_modules_to_save, or sync_ref_model: else the reference would have to be "
                "computed for all rows before the first step");
  check_reference(c, c.use_peft, wrong);
  check_losses(c, wrong);
}

std::string joined(const std::string& list) {
  std::string text;
  for (const std::string& part : list_parts(list)) text += (text.empty() ? "" : ",") + part;
  return text;
}

}  // namespace

void DpoConfig::resolve() {
  loss_type = joined(loss_type);
  loss_weights = joined(loss_weights);
  shuffle = shuffle && !streaming;
}

Fields fields_of(DpoConfig& c) {
  return composed({model_fields(c),
                   data_fields(c, "{\"prompt\", \"chosen\", \"rejected\"} or {\"chosen\", \"rejected\"}",
                               "eval_loss and eval_rewards/…"),
                   dpo_fields(c), reference_fields(c), adapter_fields(c), training_fields_of(c)});
}

void check(const DpoConfig& c, Complaints& wrong) {
  check_model(c, wrong);
  check_data(c, c.dry_run, wrong);
  check_dpo(c, wrong);
  check_adapter(c, wrong);
  check_training(c, wrong);
}

PreferenceLossOptions preference_loss_options(const DpoConfig& config) {
  PreferenceLossOptions options;
  options.losses.clear();
  const std::vector<std::string> names = list_parts(config.loss_type), weights = list_parts(config.loss_weights);
  for (size_t i = 0; i < names.size(); ++i)
    options.losses.push_back(
        {parse_preference_loss(names[i]).value(), weights.empty() ? 1 : number_of(weights.at(i)).value()});
  options.beta = config.beta;
  options.label_smoothing = config.label_smoothing;
  options.f_divergence = parse_f_divergence(config.f_divergence_type).value();
  options.f_alpha_divergence_coef = config.f_alpha_divergence_coef;
  options.discopop_tau = config.discopop_tau;
  options.use_weighting = config.use_weighting;
  options.ld_alpha = config.ld_alpha;
  return options;
}

}  // namespace lathe::train
