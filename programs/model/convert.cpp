// lathe-model convert: GGUF to a Hugging Face directory, and the other way round.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/model/commands.h"
#include "text/convert_model.h"

namespace lathe::programs {
namespace {

namespace fs = std::filesystem;

struct ConvertOptions {
  cli::CommonOptions common;
  std::string model, out, dtype = "auto", format = "auto", max_shard_size = "5GB";
};

std::optional<DType> parse_stored_dtype(const std::string& text) {
  if (text == "auto") return std::nullopt;
  if (text == "float32" || text == "f32") return DType::f32;
  if (text == "bfloat16" || text == "bf16") return DType::bf16;
  if (text == "float16" || text == "f16") return DType::f16;
  throw ConfigError("dtype", "expected auto, f32, bf16 or f16 for a Hugging Face directory, found " + text);
}

const nn::GgmlWriter* parse_gguf_type(std::string text) {
  if (text == "auto") return nullptr;
  if (text == "float32") text = "f32";
  if (text == "bfloat16") text = "bf16";
  if (text == "float16") text = "f16";
  if (const nn::GgmlWriter* type = nn::ggml_writer(text)) return type;
  throw ConfigError("dtype", "expected auto, " + std::string(nn::ggml_writer_names()) + " for GGUF, found " + text);
}

// "5GB", "500MB", "2GiB", "123456": as transformers reads max_shard_size.
int64_t parse_size(const std::string& text) {
  const size_t digits = text.find_first_not_of("0123456789");
  const std::string unit = digits == text.npos ? "" : text.substr(digits);
  int64_t scale = 0;
  for (const auto& [name, bytes] : {std::pair<const char*, int64_t>{"", 1},
                                    {"KB", 1'000},
                                    {"MB", 1'000'000},
                                    {"GB", 1'000'000'000},
                                    {"KiB", 1 << 10},
                                    {"MiB", 1 << 20},
                                    {"GiB", 1 << 30}})
    if (unit == name) scale = bytes;
  if (scale == 0 || digits == 0 || text.empty() || std::min(digits, text.size()) > 9)
    throw ConfigError("max_shard_size", "expected a size such as 5GB or 500MB, found " + text);
  const int64_t size = std::stoll(text) * scale;
  if (size == 0) throw ConfigError("max_shard_size", "expected a size above 0");
  return size;
}

int64_t bytes_under(const fs::path& path) {
  if (fs::is_regular_file(path)) return static_cast<int64_t>(fs::file_size(path));
  int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  return bytes;
}

bool writes_gguf(const std::string& format, const fs::path& out) {
  if (format == "gguf") return true;
  if (format == "hf") return false;
  if (format == "auto") return out.extension() == ".gguf";
  throw ConfigError("format", "expected auto, gguf or hf, found " + format);
}

void run(const ConvertOptions& options) {
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const fs::path out =
      fs::path(options.out).has_filename() ? fs::path(options.out) : fs::path(options.out).parent_path();
  const bool gguf = writes_gguf(options.format, out);
  const nn::GgmlWriter* type = gguf ? parse_gguf_type(options.dtype) : nullptr;
  const std::optional<DType> dtype = gguf ? std::nullopt : parse_stored_dtype(options.dtype);
  const int64_t max_shard_bytes = parse_size(options.max_shard_size);
  if (fs::exists(fs::symlink_status(out)))
    throw ConfigError("OUT", out.string() + " exists already; choose another name, or remove it first");
  const nn::ModelFiles files = nn::open_model_files(options.model);
  for (const std::string& warning : files.warnings) cli::print_warning(warning);

  text::ConvertedModel written;
  if (gguf) {
    written = text::write_gguf_file(out, files, type);
  } else {
    AtomicDirectory writing(out);
    written = text::write_hf_directory(writing.staging(), files, dtype, max_shard_bytes);
    writing.commit();
  }
  for (const std::string& warning : written.warnings) cli::print_warning(warning);
  const int64_t bytes = bytes_under(out);
  if (options.common.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"out", out.string()},
                                              {"format", gguf ? "gguf" : "hf"},
                                              {"type", written.type},
                                              {"weights", written.weights},
                                              {"bytes", bytes}}
                           .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    return;
  }
  fmt::print("{}: {} weights, mostly {}, {:.1f} MiB\n", out.string(), written.weights, written.type,
             static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

void add_convert(CLI::App& app) {
  auto options = std::make_shared<ConvertOptions>();
  CLI::App* command = app.add_subcommand(
      "convert", "write a GGUF file as a Hugging Face directory, or the other way round, or either in another dtype");
  command->add_option("MODEL", options->model, ".gguf file, Hugging Face directory, or ORG/NAME that was fetched")
      ->required();
  command->add_option("OUT", options->out, "NAME.gguf, or a folder; must not exist")->required();
  command
      ->add_option(
          "--dtype", options->dtype,
          "of the matrices: auto (as stored; bf16 for quantised ones), f32, bf16, f16; of GGUF also q8_0, q4_0, "
          "q4_1")
      ->capture_default_str();
  command->add_option("--format", options->format, "gguf or hf; auto goes by OUT's name")->capture_default_str();
  command->add_option("--max_shard_size", options->max_shard_size, "of a file of weights: 5GB, 500MB, 2GiB")
      ->capture_default_str();
  cli::add_common_options(*command, options->common);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::programs
