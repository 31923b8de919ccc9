#include "programs/data/sft_row_options.h"

namespace lathe::programs {

data::SftOptions SftRowOptions::parsed(int64_t vocab_size) const {
  data::SftOptions options;
  options.dataset_text_field = dataset_text_field;
  options.max_length = max_length > 0 ? std::optional(max_length) : std::nullopt;
  options.truncation_mode =
      truncation_mode == "keep_end" ? data::TruncationMode::keep_end : data::TruncationMode::keep_start;
  if (completion_only_loss != "auto") options.completion_only_loss = completion_only_loss == "true";
  options.assistant_only_loss = assistant_only_loss;
  options.packing = packing;
  options.vocab_size = vocab_size;
  return options;
}

void add_sft_row_options(CLI::App& command, SftRowOptions& options) {
  command
      .add_option("--model", options.model, "a .gguf file or a Hugging Face directory, for its tokenizer and template")
      ->required();
  command.add_option("--max_length", options.max_length, "tokens that a row keeps; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_option("--truncation_mode", options.truncation_mode, "which end of a long row is kept")
      ->capture_default_str()
      ->check(CLI::IsMember({"keep_start", "keep_end"}));
  command.add_option("--dataset_text_field", options.dataset_text_field, "the field of plain text")
      ->capture_default_str();
  command
      .add_option("--completion_only_loss", options.completion_only_loss,
                  "train on completions alone (auto: where rows have one)")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "true", "false"}));
  command.add_flag(
      "--assistant_only_loss", options.assistant_only_loss,
      "train on what the assistant says alone: {% generation %} blocks of the template, or what follows each generation prompt");
  command.add_flag("--packing", options.packing, "put several rows in one sequence of max_length tokens");
  command.add_option("--packing_strategy", options.packing_strategy, "how")
      ->capture_default_str()
      ->check(CLI::IsMember({"bfd", "bfd_split", "wrapped"}));
}

void add_kind_option(CLI::App& command, std::string& kind) {
  command
      .add_option("--kind", kind,
                  "what the rows are: sft; preference (chosen and rejected, for lathe-train dpo); prompt (with every "
                  "other column, for lathe-train grpo)")
      ->capture_default_str()
      ->check(CLI::IsMember({"sft", "preference", "prompt"}));
}

}  // namespace lathe::programs
