// lathe-model pull: a model from a Hub, into the cache that huggingface_hub uses.
#include <fmt/format.h>

#include <memory>

#include "core/error.h"
#include "core/hub/cache.h"
#include "core/json_value.h"
#include "core/printable.h"
#include "nn/model_path.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/cli/progress.h"
#include "programs/model/commands.h"
#ifdef LATHE_HUB
#include "programs/model/pull_selection.h"
#endif

namespace lathe::programs {
namespace {

struct PullOptions {
  cli::CommonOptions common;
  std::string model, endpoint, token;
  std::vector<std::string> include;
  bool offline = false, list = false;
};

hub::RepositoryId parsed_model(const std::string& text) {
  if (auto id = hub::parse_repository_id(text)) return *id;
  throw ConfigError("MODEL", "expected ORG/NAME or ORG/NAME@REVISION, found " + text);
}

#ifdef LATHE_HUB

void print_json(const nlohmann::ordered_json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void print_list(const hub::Listing& listing, bool json) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const hub::HubFile& file : listing.files) {
    if (json) {
      files.push_back({{"name", file.name}, {"bytes", nullptr}});
      if (file.size) files.back()["bytes"] = *file.size;
    } else if (file.size) {
      fmt::print("{:>12.1f} MiB  {}\n", mebibytes(*file.size), printable(file.name));
    } else {
      fmt::print("{:>16}  {}\n", "", printable(file.name));
    }
  }
  if (json) print_json({{"commit", listing.commit}, {"license", listing.license}, {"files", std::move(files)}});
}

// Prints where the model is that no network was asked for.
void find_offline(const PullOptions& options, const hub::RepositoryId& id) {
  const std::filesystem::path path = nn::resolve_model_path(options.model);
  if (options.common.json) return print_json({{"model", id.name}, {"path", path.string()}, {"fetched_bytes", 0}});
  fmt::print("{}\n", path.string());
}

void run(const PullOptions& options) {
  const hub::RepositoryId id = parsed_model(options.model);
  hub::HubSettings settings = hub::HubSettings::of_environment();
  if (!options.endpoint.empty()) settings.endpoint = options.endpoint;
  if (!options.token.empty()) settings.token = options.token;
  if (options.offline || settings.offline) return find_offline(options, id);
  hub::Hub hub(settings, hub::Cache::of_environment());
  const hub::Listing listing = hub.list(id);
  if (options.list) return print_list(listing, options.common.json);
  const PullSelection selection = select_files(id.name, listing.files, options.include);
  for (const std::string& name : selection.refused)
    cli::print_warning(name + " is a pickle or a program, which Lathe never fetches: left out");

  int64_t total = 0;
  for (const hub::HubFile& file : selection.files) total += file.size.value_or(0);
  cli::Progress progress("fetching MiB", total >> 20);
  int64_t before = 0, fetched = 0;
  for (const hub::HubFile& file : selection.files) {
    int64_t begin = -1, end = 0;  // what came in now, without the part that an earlier try had left
    hub.fetch(id.name, listing.commit, file, [&](const std::string& name, int64_t done, int64_t) {
      if (begin < 0 || done < begin) begin = done;
      end = done;
      if (total > 0) progress.update((before + done) >> 20, name);
    });
    fetched += begin < 0 ? 0 : end;
    before += file.size.value_or(end);
    if (total > 0) progress.update(before >> 20, file.name);
  }
  // Only now does the revision stand for this commit: a pull that ended early leaves the old one.
  hub.cache().write_ref(id, listing.commit);

  const std::filesystem::path path = nn::resolve_model_path(id.name + "@" + listing.commit);
  if (options.common.json)
    return print_json({{"model", id.name},
                       {"revision", id.revision},
                       {"commit", listing.commit},
                       {"license", listing.license},
                       {"path", path.string()},
                       {"files", selection.files.size()},
                       {"fetched_bytes", fetched}});
  if (!listing.license.empty()) cli::print_note("licence: " + listing.license);
  fmt::print("{}\n", path.string());
}

#else

void run(const PullOptions& options) {
  parsed_model(options.model);
  throw ResourceError(
      "this lathe-model was built without fetching: install libcurl4-openssl-dev and libssl-dev "
      "(scripts/install-packages does) and build again, or fetch the model with 'hf download', which shares its cache "
      "with Lathe");
}

#endif

}  // namespace

void add_pull(CLI::App& app) {
  auto options = std::make_shared<PullOptions>();
  CLI::App* command = app.add_subcommand(
      "pull", "fetch a model from a Hub into the cache that huggingface_hub uses; ORG/NAME is a MODEL from then on");
  command->add_option("MODEL", options->model, "ORG/NAME or ORG/NAME@REVISION: a branch, a tag or a commit")
      ->required();
  command->add_option("--endpoint", options->endpoint,
                      "address of the Hub (default: HF_ENDPOINT, or https://huggingface.co)");
  command
      ->add_option("--include", options->include,
                   "fetch the files that this glob matches ('*Q4_K_M*'), with the tokenizer's; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--token", options->token,
                      "for private and gated models; better HF_TOKEN, which no list of processes shows");
  command->add_flag("--offline", options->offline,
                    "ask no network: print where the model is, or fail (HF_HUB_OFFLINE)");
  command->add_flag("--list", options->list, "list the files and fetch none");
  command->footer(
      "Without --include, safetensors (or the only GGUF model), JSON and the tokenizer's files are fetched; never "
      "pickles. A fetch that was cut off goes on where it was. HF_HUB_CACHE or HF_HOME name the cache.");
  cli::add_common_options(*command, options->common);
  command->callback([options] { run(*options); });
}

}  // namespace lathe::programs
