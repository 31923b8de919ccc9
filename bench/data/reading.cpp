#include "bench/data/reading.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/shards/shards.h"
#include "data/shuffle/permutation.h"
#include "programs/cli/program.h"

namespace lathe::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct DataOptions {
  cli::CommonOptions common;
  std::string folder;
  int repeat = 5;
};

double seconds_of(const auto& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Whole files, by read() into a buffer that stays in the cache.
void read_files(const std::string& folder, const data::ShardManifest& manifest) {
  std::vector<char> buffer(256 << 10);
  for (const data::ShardEntry& entry : manifest.files) {
    const std::string path = folder + "/" + entry.name;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw ResourceError("cannot open " + path + ": " + std::strerror(errno));
    while (::read(file, buffer.data(), buffer.size()) > 0) {
    }
    ::close(file);
  }
}

// Every row once, in the order of an epoch, as a step asks for it.
int64_t read_rows(const data::Shards& shards, uint64_t epoch) {
  const data::Permutation permutation(static_cast<uint64_t>(shards.rows()), 42, epoch);
  std::vector<int32_t> ids, labels;
  int64_t tokens = 0;
  for (int64_t position = 0; position < shards.rows(); ++position) {
    ids.clear();
    labels.clear();
    const auto [first, last] =
        shards.sequences_of_row(static_cast<int64_t>(permutation(static_cast<uint64_t>(position))));
    for (int64_t sequence = first; sequence < last; ++sequence) shards.append_sequence(sequence, ids, labels);
    tokens += std::ssize(ids);
  }
  return tokens;
}

void measure(const DataOptions& options) {
  const data::Shards shards(options.folder);
  const data::ShardManifest& manifest = shards.manifest();
  int64_t bytes = 0, tokens = 0;
  for (const data::ShardEntry& entry : manifest.files) bytes += entry.bytes;
  read_files(options.folder, manifest);  // into the page cache
  const double first = seconds_of([&] { tokens = read_rows(shards, 0); });
  double cache = 1e9, again = 1e9;
  for (int i = 0; i < options.repeat; ++i) {  // in turn
    cache = std::min(cache, seconds_of([&] { read_files(options.folder, manifest); }));
    again = std::min(again, seconds_of([&] { read_rows(shards, static_cast<uint64_t>(i) + 1); }));
  }
  const auto rate = [&](double seconds) { return static_cast<double>(bytes) / 1e9 / seconds; };
  if (options.common.json) {
    const nlohmann::ordered_json result = {{"shards", options.folder},
                                           {"bytes", bytes},
                                           {"tokens", tokens},
                                           {"page_cache_gb_per_second", rate(cache)},
                                           {"first_epoch_gb_per_second", rate(first)},
                                           {"later_epochs_gb_per_second", rate(again)},
                                           {"share_of_page_cache", cache / again},
                                           {"tokens_per_second", static_cast<double>(tokens) / again}};
    fmt::print("{}\n", result.dump(1));
    return;
  }
  fmt::print("{}: {:.0f} MB, {} tokens, one thread\n", options.folder, static_cast<double>(bytes) / 1e6, tokens);
  fmt::print("  read() from the page cache   {:6.2f} GB/s\n", rate(cache));
  fmt::print("  rows, first epoch (hashed)   {:6.2f} GB/s\n", rate(first));
  fmt::print("  rows, later epochs           {:6.2f} GB/s, {:.0f} % of it, {:.2f} G tokens/s\n", rate(again),
             100 * cache / again, static_cast<double>(tokens) / 1e9 / again);
}

}  // namespace

void add_data(CLI::App& app) {
  auto* command = app.add_subcommand("data", "How fast training reads shards, beside the page cache");
  auto options = std::make_shared<DataOptions>();
  command->add_option("SHARDS", options->folder, "a folder that lathe-data tokenize has filled")->required();
  command->add_option("--repeat", options->repeat, "the best of so many")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  cli::add_common_options(*command, options->common);
  command->callback([options] { measure(*options); });
}

}  // namespace lathe::bench
