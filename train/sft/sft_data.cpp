#include "train/sft/sft_data.h"

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "data/packing/packing.h"
#include "data/rows/sft_rows.h"
#include "data/shards/manifest.h"
#include "data/shards/row_kinds.h"
#include "train/dataset_shards.h"
#include "train/datasets.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

constexpr size_t sample_count = 4;

data::SftOptions options_of(const SftConfig& config, const text::ModelText& text, bool packing) {
  data::SftOptions options;
  options.dataset_text_field = config.dataset_text_field;
  options.max_length = config.max_length;
  options.completion_only_loss = config.completion_only_loss;
  options.assistant_only_loss = config.assistant_only_loss;
  options.packing = packing;
  options.vocab_size = text.vocab_size;
  options.too_long = config.too_long == "error" ? data::TooLong::error : data::TooLong::truncate;
  return options;
}

void add_packed(TrainingSet& set, const std::vector<data::PackedExample>& examples) {
  for (const data::PackedExample& packed : examples) {
    size_t begin = 0;
    for (size_t i = 0; i < packed.sample_lengths.size(); ++i) {
      const auto length = static_cast<size_t>(packed.sample_lengths[i]);
      const auto ids = std::span(packed.input_ids).subspan(begin, length);
      const auto labels = std::span(packed.labels).subspan(begin, length);
      i == 0 ? set.add_row(ids, labels) : set.add_to_row(ids, labels);
      begin += length;
    }
  }
}

TrainingSet open_set(const std::string& key, const std::string& path, bool packing, const SftConfig& config,
                     const text::ModelText& text, std::vector<std::string>& warnings,
                     std::vector<data::SftExample>* kept) {
  ExpectedShards expected{key, "sft", config.model,
                          data::sft_settings_json(options_of(config, text, packing), config.packing_strategy),
                          config.too_long == "error"};
  TrainingSet set = open_shards(path, expected, text, warnings);
  if (set.labelled_tokens() == 0) throw ConfigError(key, path + " holds nothing to learn from");
  for (int64_t i = 0; kept != nullptr && i < set.sequences() && kept->size() < sample_count; ++i) {
    data::SftExample& example = kept->emplace_back();
    set.append_sequence(i, example.input_ids, example.labels);
  }
  return set;
}

TrainingSet load_set(const std::string& key, const std::string& path, bool packing, const SftConfig& config,
                     const text::ModelText& text, std::vector<std::string>& warnings,
                     std::vector<data::SftExample>* kept) {
  if (data::is_shard_folder(path)) return open_set(key, path, packing, config, text, warnings, kept);
  expect_file(key, path);
  data::SftRows rows =
      data::read_sft_rows(path, *text.tokenizer, text.chat_template.get(), options_of(config, text, packing));
  for (const std::string& warning : rows.warnings) warnings.push_back(path + ": " + warning);
  TrainingSet set;
  if (packing) {
    const data::PackedRows packed =
        data::pack_examples(rows.examples, config.max_length, data::packing_strategy(config.packing_strategy));
    add_packed(set, packed.examples);
    if (packed.dropped > 0)
      warnings.push_back(path + ": " + std::to_string(packed.dropped) +
                         " packed sequences dropped: they have nothing to train on");
  } else {
    for (const data::SftExample& example : rows.examples) set.add_row(example.input_ids, example.labels);
  }
  if (set.rows() == 0 || set.labelled_tokens() == 0)
    throw ConfigError(key, path + " holds nothing to learn from: " +
                               (rows.dropped.empty()
                                    ? "no token has a label"
                                    : "line " + std::to_string(rows.dropped[0].line) + ": " + rows.dropped[0].reason));
  if (kept != nullptr) {
    for (size_t i = 0; i < rows.examples.size() && kept->size() < sample_count; ++i)
      kept->push_back(std::move(rows.examples[i]));
  }
  return set;
}

TrainingSet load_sources(const SftConfig& config, const text::ModelText& text, std::vector<std::string>& warnings,
                         std::vector<data::SftExample>& kept) {
  return load_datasets(config.dataset, [&](const std::string& path) {
    return load_set("dataset", path, config.packing, config, text, warnings, &kept);
  });
}

StreamedRowReader row_reader(data::SftOptions options, const text::ModelText& text) {
  const auto reader = std::make_shared<HeldRowReader<data::SftRowReader, data::SftOptions>>(text, std::move(options));
  return [reader](std::string_view json, const std::string&, int64_t) {
    data::PreparedRow row = reader->rows.read(json);
    return StreamedRow{{std::move(row.example)}, "", std::move(row.error), std::move(row.dropped_because)};
  };
}

TrainingSet open_stream(const SftConfig& config, const text::ModelText& text, const DataParallel& parallel,
                        std::vector<data::SftExample>& kept) {
  RowStreamSettings settings;
  settings.input = stream_input(config.dataset);
  settings.read = row_reader(options_of(config, text, config.packing), text);
  settings.longest_sequence = config.max_length;
  if (config.packing) settings.packing = data::packing_strategy(config.packing_strategy);
  settings.rows_per_draw = config.rows_per_step();
  settings.rows_drawn = config.max_steps * config.rows_per_step();
  settings.parallel = parallel;
  const auto stream = std::make_shared<RowStream>(std::move(settings));
  const auto last = stream->sequences_of_row(std::min<int64_t>(stream->rows(), sample_count) - 1).second;
  for (int64_t sequence = 0; sequence < std::min<int64_t>(last, sample_count); ++sequence) {
    data::SftExample& example = kept.emplace_back();
    example.input_ids.resize(static_cast<size_t>(stream->sequence_tokens(sequence)));
    example.labels.resize(example.input_ids.size());
    stream->read_sequence(sequence, example.input_ids, example.labels);
  }
  return TrainingSet::of_stream(stream);
}

SampleRow sample_of(const data::SftExample& example, const data::Tokenizer& tokenizer) {
  const auto first = std::find_if(example.labels.begin(), example.labels.end(),
                                  [](int32_t label) { return label != data::ignored_label; });
  const auto split = static_cast<size_t>(first - example.labels.begin());
  const std::span<const int32_t> ids(example.input_ids);
  return {tokenizer.decode(ids.subspan(0, split)), tokenizer.decode(ids.subspan(split))};
}

}  // namespace

SftData load_sft_data(const SftConfig& config, const text::ModelText& text, const DataParallel& parallel) {
  SftData result;
  std::vector<data::SftExample> first_rows;
  result.training = config.streaming ? open_stream(config, text, parallel, first_rows)
                                     : load_sources(config, text, result.warnings, first_rows);
  for (const data::SftExample& example : first_rows) result.samples.push_back(sample_of(example, *text.tokenizer));
  if (!config.eval_dataset.empty())
    result.evaluation = load_set("eval_dataset", config.eval_dataset, false, config, text, result.warnings, nullptr);
  return result;
}

}  // namespace lathe::train
