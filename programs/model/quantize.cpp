// lathe-model quantize: a model directory with its linears in 4 bits, for Lathe and for transformers.
#include <fmt/format.h>

#include <memory>

#include "core/json_value.h"
#include "core/thread_pool.h"
#include "nn/quantize_model.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/model/commands.h"

namespace lathe::programs {
namespace {

struct QuantizeOptions {
  cli::CommonOptions common;
  std::string model, out, dtype = "auto";
  bool double_quant = false;
};

void run(const QuantizeOptions& options) {
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const nn::ModelFiles files = nn::open_model_files(options.model);
  for (const std::string& warning : files.warnings) cli::print_warning(warning);
  const DType dtype = options.dtype == "auto"                                ? nn::stored_dtype(files)
                      : options.dtype == "f16" || options.dtype == "float16" ? DType::f16
                                                                             : nn::parse_compute_dtype(options.dtype);
  const nn::QuantizedModel written = nn::write_quantized_model(
      options.out, files, dtype, options.double_quant ? kernels::Nf4Scales::nested : kernels::Nf4Scales::plain);
  if (options.common.json) {
    const nlohmann::ordered_json result = {{"out", options.out},
                                           {"linears", written.linears},
                                           {"dtype", name_of(dtype)},
                                           {"weight_bytes", written.stored_bytes},
                                           {"source_weight_bytes", written.source_bytes}};
    fmt::print("{}\n", result.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    return;
  }
  fmt::print("{}: {} linears in nf4, the rest in {}; {:.1f} MiB of weights, {:.1f} before\n", options.out,
             written.linears, name_of(dtype), static_cast<double>(written.stored_bytes) / (1 << 20),
             static_cast<double>(written.source_bytes) / (1 << 20));
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto options = std::make_shared<QuantizeOptions>();
  CLI::App* command = app.add_subcommand(
      "quantize", "write a model with its linears in 4 bits (nf4), as transformers and bitsandbytes load it");
  command->add_option("MODEL", options->model, "Hugging Face directory")->required();
  command->add_option("OUT", options->out, "folder to write: new, or empty")->required();
  command
      ->add_option("--dtype", options->dtype,
                   "of what stays dense, and what bitsandbytes dequantises to: auto (the model's own), f32, bf16, f16")
      ->capture_default_str();
  command->add_flag("--bnb_4bit_use_double_quant", options->double_quant,
                    "the scales in 8 bits, too: 4.13 bits a weight instead of 4.5");
  cli::add_common_options(*command, options->common);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::programs
