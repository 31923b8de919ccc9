// lathe-model merge: an adapter made part of its base.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "nn/adapter.h"
#include "nn/merge_adapter.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/model/commands.h"

namespace lathe::programs {
namespace {

namespace fs = std::filesystem;

struct MergeOptions {
  cli::CommonOptions common;
  std::string model, adapter, out, dtype = "auto";
  bool no_check = false;
};

std::optional<DType> parse_stored_dtype(const std::string& text) {
  if (text == "auto") return std::nullopt;
  if (text == "float32" || text == "f32") return DType::f32;
  if (text == "bfloat16" || text == "bf16") return DType::bf16;
  if (text == "float16" || text == "f16") return DType::f16;
  throw ConfigError("dtype", "expected auto, float32, bfloat16 or float16, found " + text);
}

void print_result(const MergeOptions& options, const nn::MergedModel& merged,
                  const std::optional<nn::MergeCheck>& check) {
  if (options.common.json) {
    nlohmann::ordered_json result = {
        {"out", options.out}, {"weights", merged.weights}, {"merged", merged.merged}, {"bytes", merged.bytes}};
    if (check)
      result["check"] = {{"tokens", check->tokens}, {"difference", check->difference}, {"bound", check->bound}};
    fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    return;
  }
  if (check)
    cli::print_note(fmt::format(
        "read back: the logits of {} tokens differ from the base's with the adapter by {:.2g} of their norm "
        "(rounding and sums allow {:.2g})",
        check->tokens, check->difference, check->bound));
  fmt::print("{}: {} of {} weights merged, {:.1f} MiB\n", options.out, merged.merged, merged.weights,
             mebibytes(merged.bytes));
}

void run(const MergeOptions& options) {
  const Device device = options.common.parsed_device();
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const std::optional<DType> dtype = parse_stored_dtype(options.dtype);
  const fs::path out =
      fs::path(options.out).has_filename() ? fs::path(options.out) : fs::path(options.out).parent_path();
  if (fs::exists(fs::symlink_status(out)))
    throw ConfigError("OUT", out.string() + " exists already; name a folder that does not, or remove it first");
  const nn::ModelFiles base = nn::open_model_files(options.model);
  for (const std::string& warning : base.warnings) cli::print_warning(warning);
  std::vector<std::string> warnings;
  const nn::PeftAdapter adapter = nn::read_peft_adapter(options.adapter, &warnings);
  for (std::string& warning : nn::adapter_warnings(base, adapter.config, nn::resolved_quantization(base, {})))
    warnings.push_back(std::move(warning));
  for (const std::string& warning : warnings) cli::print_warning(options.adapter + ": " + warning);

  AtomicDirectory writing(out);
  const nn::MergedModel merged = nn::write_merged_model(writing.staging(), base, adapter, dtype);
  if (merged.base_was_codes)
    cli::print_note(fmt::format(
        "{} holds codes ({:.1f} MiB): what is written are their dequantised values plus the adapter ({:.1f} MiB). "
        "Quantising them again gives other codes, and other answers, than the base with the adapter beside it",
        options.model, mebibytes(merged.base_bytes), mebibytes(merged.bytes)));
  std::optional<nn::MergeCheck> check;
  if (!options.no_check) check = nn::check_merged_model(writing.staging(), base, adapter, device);
  writing.commit();
  print_result(options, merged, check);
}

}  // namespace

void add_merge(CLI::App& app) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* command = app.add_subcommand("merge", "make an adapter part of its base: a model of its own");
  command->add_option("MODEL", options->model, "the base: a Hugging Face directory")->required();
  command->add_option("OUT", options->out, "the folder to write, which must not exist")->required();
  command->add_option("--adapter", options->adapter, "PEFT adapter directory")->required();
  command
      ->add_option("--dtype", options->dtype,
                   "of the weights: auto (as the base stores each; of codes, what its config.json names), float32, "
                   "bfloat16 or float16")
      ->capture_default_str();
  command->add_flag("--no_check", options->no_check,
                    "do not read the result back and compare it with the base and the adapter, which loads one after "
                    "the other in float32");
  cli::add_common_options(*command, options->common);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::programs
