#include "train/row_stream.h"

#include <xxhash.h>

#include <cstring>

#include "core/atomic_write.h"
#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "data/readers/text_lines.h"
#include "data/shards/manifest.h"
#include "train/dataset_shards.h"
#include "train/objective.h"
#include "train/settings/data_settings.h"

namespace lathe::train {
namespace {

constexpr const char* state_name = "row_stream.json";
constexpr size_t group_inputs = 64, packed_group_inputs = 1000;

}  // namespace

std::string stream_input(const std::string& dataset) {
  const std::vector<DatasetSource> sources = dataset_sources(dataset);
  const std::string& path = sources[0].path;
  if (sources.size() > 1) throw ConfigError("streaming", "takes one dataset, found " + std::to_string(sources.size()));
  if (data::is_shard_folder(path))
    throw ConfigError("streaming", path + " holds shards, which are read as steps ask for them anyway; leave it out");
  if (!std::filesystem::is_fifo(path) && !std::filesystem::is_character_file(path)) expect_file("dataset", path);
  return path;
}

RowStream::RowStream(RowStreamSettings settings)
    : settings_(std::move(settings)), files_(data::files_of_input(settings_.input, "dataset")) {}

std::optional<data::TextLine> RowStream::next_input() const {
  for (;;) {
    if (!source_) {
      if (next_file_ == files_.size()) return std::nullopt;
      source_ = data::open_row_source(files_[next_file_++]);
    }
    if (const std::optional<data::TextLine> line = source_->next()) {
      if (end_.inputs == 0 && !source_->is_arrow())
        data::expect_no_json_array(line->text, line->number, source_->name());
      ++end_.inputs;
      end_.xxh64 = XXH64(line->text.data(), line->text.size(), end_.xxh64);
      return line;
    }
    source_.reset();
  }
}

std::vector<RowStream::Input> RowStream::next_inputs() const {
  std::vector<Input> inputs;
  const size_t most = settings_.packing ? packed_group_inputs : group_inputs;
  while (settings_.parallel.is_main_process() && inputs.size() < most) {
    const std::optional<data::TextLine> line = next_input();
    if (!line) break;
    inputs.push_back({std::string(line->text), source_->name(), line->number, {end_.inputs, end_.xxh64}});
  }
  if (!settings_.parallel.several()) return inputs;
  inputs = from_bytes(settings_.parallel.text_from_main_process(to_bytes(inputs)));
  if (!inputs.empty()) {
    end_.inputs = inputs.back().end.inputs;
    end_.xxh64 = inputs.back().end.xxh64;
  }
  return inputs;
}

// For each: the sizes of its strings, its numbers, its strings.
std::string RowStream::to_bytes(const std::vector<Input>& inputs) {
  std::string bytes;
  for (const Input& input : inputs) {
    const uint64_t numbers[] = {input.text.size(), input.file.size(), static_cast<uint64_t>(input.line),
                                static_cast<uint64_t>(input.end.inputs), input.end.xxh64};
    bytes.append(reinterpret_cast<const char*>(numbers), sizeof numbers);
    bytes += input.text;
    bytes += input.file;
  }
  return bytes;
}

std::vector<RowStream::Input> RowStream::from_bytes(const std::string& bytes) {
  std::vector<Input> inputs;
  for (size_t at = 0; at < bytes.size();) {
    uint64_t numbers[5];
    std::memcpy(numbers, bytes.data() + at, sizeof numbers);
    at += sizeof numbers;
    inputs.push_back({bytes.substr(at, numbers[0]),
                      bytes.substr(at + numbers[0], numbers[1]),
                      static_cast<int64_t>(numbers[2]),
                      {static_cast<int64_t>(numbers[3]), numbers[4]}});
    at += numbers[0] + numbers[1];
  }
  return inputs;
}

void RowStream::read_group() const {
  Group group;
  group.begin = end_;
  const std::vector<Input> inputs = next_inputs();
  if (inputs.empty())
    throw StepAbandoned(settings_.input + " has ended after " + std::to_string(end_.inputs) + " rows (" +
                        std::to_string(end_.row) + " to learn from), and max_steps asks for " +
                        std::to_string(settings_.rows_drawn) + "; give more rows, or fewer steps");
  std::vector<StreamedRow> read(inputs.size());
  parallel_for(std::ssize(inputs), 4, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      read[i] = settings_.read(inputs[i].text, inputs[i].file, inputs[i].line);
  });
  for (size_t i = 0; i < read.size(); ++i) {
    if (!read[i].error.empty())
      throw StepAbandoned(inputs[i].file + ": line " + std::to_string(inputs[i].line) + ": " + read[i].error);
    if (!read[i].dropped_because.empty()) continue;
    group.rows.push_back(std::move(read[i].sequences));
    group.texts.push_back(std::move(read[i].text));
    group.needed.push_back(inputs[i].end);
  }
  if (settings_.packing) {
    group.rows = packed(group.rows);
    group.texts.assign(group.rows.size(), "");
    group.needed.assign(group.rows.size(), inputs.back().end);
  }
  for (const auto& row : group.rows) group.sequences += std::ssize(row);
  end_.row += std::ssize(group.rows);
  end_.sequence += group.sequences;
  groups_.push_back(std::move(group));
}

std::vector<std::vector<data::SftExample>> RowStream::packed(
    const std::vector<std::vector<data::SftExample>>& singles) const {
  std::vector<data::SftExample> examples;
  for (const auto& row : singles) examples.insert(examples.end(), row.begin(), row.end());
  std::vector<std::vector<data::SftExample>> rows;
  for (const data::PackedExample& example :
       data::pack_examples(examples, settings_.longest_sequence, *settings_.packing).examples) {
    auto& row = rows.emplace_back();
    auto id = example.input_ids.begin(), label = example.labels.begin();
    for (const int32_t length : example.sample_lengths) {
      row.push_back({{id, id + length}, {label, label + length}});
      id += length;
      label += length;
    }
  }
  return rows;
}

std::pair<int64_t, int64_t> RowStream::sequences_of_row(int64_t row) const {
  while (end_.row <= row) read_group();
  while (groups_.size() > 1 && groups_[1].begin.row + settings_.rows_per_draw <= row) groups_.pop_front();
  const Group* const group = group_of(row);
  if (group == nullptr) throw Error("row " + std::to_string(row) + " of the stream has passed");
  const auto at = static_cast<size_t>(row - group->begin.row);
  int64_t first = group->begin.sequence;
  for (size_t i = 0; i < at; ++i) first += std::ssize(group->rows[i]);
  return {first, first + std::ssize(group->rows[at])};
}

const RowStream::Group* RowStream::group_of(int64_t row) const {
  for (const Group& group : groups_)
    if (row >= group.begin.row && row < group.begin.row + std::ssize(group.rows)) return &group;
  return nullptr;
}

const data::SftExample& RowStream::sequence(int64_t index) const {
  for (const Group& group : groups_) {
    int64_t at = index - group.begin.sequence;
    if (at < 0 || at >= group.sequences) continue;
    for (const auto& row : group.rows) {
      if (at < std::ssize(row)) return row[static_cast<size_t>(at)];
      at -= std::ssize(row);
    }
  }
  throw Error("sequence " + std::to_string(index) + " of the stream is not held");
}

std::string RowStream::row_text(int64_t row) const {
  sequences_of_row(row);
  const Group* const group = group_of(row);
  return group->texts[static_cast<size_t>(row - group->begin.row)];
}

int64_t RowStream::sequence_tokens(int64_t index) const { return std::ssize(sequence(index).input_ids); }

void RowStream::read_sequence(int64_t index, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const data::SftExample& example = sequence(index);
  std::ranges::copy(example.input_ids, ids.begin());
  std::ranges::copy(example.labels, labels.begin());
}

void RowStream::save(const std::filesystem::path& folder, int64_t rows_learnt) const {
  const Group* const next = group_of(rows_learnt);
  const Group* const last = group_of(rows_learnt - 1);
  const Place begin = next != nullptr ? next->begin : end_;
  const InputsRead learnt =
      last != nullptr ? last->needed[static_cast<size_t>(rows_learnt - 1 - last->begin.row)] : InputsRead{};
  write_file_atomically(folder / state_name, nlohmann::ordered_json{{"inputs", begin.inputs},
                                                                    {"xxh64", hash_digits(begin.xxh64)},
                                                                    {"row", begin.row},
                                                                    {"sequence", begin.sequence},
                                                                    {"rows_learnt", rows_learnt},
                                                                    {"inputs_learnt", learnt.inputs},
                                                                    {"xxh64_learnt", hash_digits(learnt.xxh64)}}
                                                 .dump(1));
}

void RowStream::refuse(const Resumption& resumption) const {
  throw FormatError(resumption.file, -1,
                    "the first " + std::to_string(resumption.learnt.inputs) + " rows of " + settings_.input +
                        " are not those that the checkpoint has learnt from; give the same stream, from its start");
}

void RowStream::load(const std::filesystem::path& folder) {
  const std::string file = (folder / state_name).string();
  const nlohmann::ordered_json json = read_json_file(file);
  Resumption found{.file = file};
  try {
    const auto count = [&](const char* key) { return json_integer(json.at(key), key, 0, INT64_MAX, file); };
    const auto hash = [&](const char* key) { return std::stoull(json.at(key).get<std::string>(), nullptr, 16); };
    found.begin = {count("inputs"), hash("xxh64"), count("row"), count("sequence")};
    found.rows_learnt = count("rows_learnt");
    found.learnt = {count("inputs_learnt"), hash("xxh64_learnt")};
  } catch (const std::exception& error) {
    throw FormatError(file, -1, std::string("is no place in a stream: ") + error.what());
  }
  while (!groups_.empty() && groups_.front().begin.inputs < found.begin.inputs) groups_.pop_front();
  if (groups_.empty()) {
    while (end_.inputs < found.begin.inputs)
      if (!next_input())
        throw FormatError(file, -1,
                          settings_.input + " has ended after " + std::to_string(end_.inputs) +
                              " rows, and the checkpoint has learnt from " + std::to_string(found.learnt.inputs) +
                              "; give the stream from its start");
    if (end_.inputs != found.begin.inputs || end_.xxh64 != found.begin.xxh64) refuse(found);
    end_ = found.begin;
  } else if (groups_.front().begin != found.begin) {
    refuse(found);
  }
  resumption_ = found;
  if (!settings_.parallel.several()) check_learnt(found);
}

void RowStream::share_place() {
  const DataParallel& parallel = settings_.parallel;
  if (!parallel.several()) return;
  Resumption& at = resumption_;
  for (int64_t* const count : {&at.begin.inputs, &at.begin.row, &at.begin.sequence, &at.rows_learnt, &at.learnt.inputs})
    *count = parallel.from_main_process(*count);
  for (uint64_t* const hash : {&at.begin.xxh64, &at.learnt.xxh64})
    *hash = static_cast<uint64_t>(parallel.from_main_process(static_cast<int64_t>(*hash)));
  at.file = parallel.text_from_main_process(at.file);
  while (!groups_.empty() && groups_.front().begin.inputs < at.begin.inputs) groups_.pop_front();
  if (groups_.empty()) end_ = at.begin;
  check_learnt(at);
}

void RowStream::check_learnt(const Resumption& resumption) {
  if (resumption.rows_learnt <= resumption.begin.row) return;  // what was learnt ends where this group begins
  const int64_t last = resumption.rows_learnt - 1;
  sequences_of_row(last);
  const Group* const group = group_of(last);
  if (group == nullptr || group->needed[static_cast<size_t>(last - group->begin.row)] != resumption.learnt)
    refuse(resumption);
}

}  // namespace lathe::train
