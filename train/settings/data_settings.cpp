#include "train/settings/data_settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "data/shuffle/mixture.h"

namespace lathe::train {
namespace {

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// What from_chars takes for a number: "inf" and "nan", too, which are refused as weights.
std::optional<double> number_of(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec == std::errc::result_out_of_range && result.ptr == end) return std::nan("");
  return result.ec == std::errc{} && result.ptr == end ? std::optional(value) : std::nullopt;
}

DatasetSource source_of(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || exists(text)) return {text, {}, {}};
  const std::optional<double> weight = number_of(text.substr(colon + 1));
  if (!weight) return {text, {}, {}};
  data::whole_weight(*weight, text.substr(0, colon));
  return {text.substr(0, colon), weight, {}};
}

std::string last_part(const std::string& path) {
  const std::filesystem::path file(path);
  return (file.has_filename() ? file : file.parent_path()).filename().string();
}

}  // namespace

std::vector<DatasetSource> dataset_sources(const std::string& dataset) {
  if (exists(dataset)) return {{dataset, {}, last_part(dataset)}};
  std::vector<DatasetSource> sources;
  for (size_t begin = 0; begin <= dataset.size();) {
    const size_t end = std::min(dataset.find(',', begin), dataset.size());
    const std::string part = dataset.substr(begin, end - begin);
    const size_t first = part.find_first_not_of(' ');
    if (first == std::string::npos) throw ConfigError("dataset", "'" + dataset + "' has an empty place in its list");
    sources.push_back(source_of(part.substr(first, part.find_last_not_of(' ') - first + 1)));
    begin = end + 1;
  }
  std::set<std::string> paths;
  for (DatasetSource& source : sources) {
    const std::string name = last_part(source.path);
    const bool only = std::ranges::count(sources, name, [](const auto& s) { return last_part(s.path); }) == 1;
    source.name = only ? name : source.path;
    if (!paths.insert(source.path).second)
      throw ConfigError("dataset", source.path + " is named twice; give it once, with the weight of both");
    if (source.weight.has_value() == sources[0].weight.has_value()) continue;
    throw ConfigError("dataset", "give each source a weight or none: " +
                                     (source.weight ? sources[0].path : source.path) + " has none");
  }
  return sources;
}

std::string dataset_text(const std::vector<DatasetSource>& sources) {
  std::string text;
  for (const DatasetSource& source : sources) {
    text += (text.empty() ? "" : ",") + source.path;
    if (!source.weight) continue;
    text += ":" + number_text(*source.weight);
  }
  return text;
}

std::string dataset_title(const std::string& dataset) {
  std::string title;
  for (const DatasetSource& source : dataset_sources(dataset))
    title += (title.empty() ? "" : ", ") + source.name + (source.weight ? " × " + number_text(*source.weight) : "");
  return title;
}

Fields data_fields(DataSettings& s, const std::string& rows, const std::string& metrics) {
  return {
      {"dataset", Group::model_and_data,
       "JSONL file (plain, .gz, .zst, or - for standard input) or folder of shards: " + rows +
           " rows; given several times, each as FILE or each as FILE:WEIGHT, the files are mixed",
       Shapes::run, &s.dataset, Values::sources},
      {"eval_dataset", Group::model_and_data, "the same, one of them, to measure " + metrics + " on", Shapes::run,
       &s.eval_dataset},
  };
}

void check_data(const DataSettings& s, bool dry_run, Complaints& wrong) {
  if (s.dataset.empty()) {
    if (!dry_run) wrong.add("dataset", "is missing: a JSONL file of examples");
    return;
  }
  try {
    dataset_sources(s.dataset);
  } catch (const ConfigError& error) {
    wrong.add("dataset", std::string(error.what()).substr(std::string("dataset: ").size()));
  }
}

}  // namespace lathe::train
