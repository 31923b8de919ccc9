#include "train/grpo/generation_batch.h"

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/mapped_file.h"

namespace lathe::train {
namespace {

using nlohmann::ordered_json;

constexpr const char* file_name = "generation_batch.json";

class Reading {
 public:
  explicit Reading(std::string file) : file_(std::move(file)) {}

  int64_t integer(const ordered_json& object, const char* key, int64_t least, int64_t greatest) const {
    return json_integer(json_member(object, key, file_), key, least, greatest, file_);
  }
  std::vector<float> logprobs(const ordered_json& object, const char* key) const {
    std::vector<float> values;
    for (const ordered_json& value : json_list(object, key, file_)) {
      const double number = json_number(value, key, file_);
      if (!(number <= 0 && number >= -1e30))
        throw FormatError(file_, -1, std::string(key) + " holds no log-probability");
      values.push_back(static_cast<float>(number));
    }
    return values;
  }
  ScoredRollout completion(const ordered_json& entry, int64_t rows, int64_t vocab_size) const {
    ScoredRollout scored;
    scored.row = integer(entry, "row", 0, rows - 1);
    for (const ordered_json& id : json_list(entry, "completion_ids", file_))
      scored.rollout.ids.push_back(static_cast<int32_t>(json_integer(id, "completion_ids", 0, vocab_size - 1, file_)));
    scored.rollout.logprobs = logprobs(entry, "logprobs");
    std::vector<float> of_reference = logprobs(entry, "ref_logprobs");
    const size_t tokens = scored.rollout.ids.size();
    if (tokens == 0 || scored.rollout.logprobs.size() != tokens ||
        (!of_reference.empty() && of_reference.size() != tokens))
      throw FormatError(file_, -1, "a completion has not as many log-probabilities as tokens");
    if (!of_reference.empty())
      scored.ref_logprobs = std::make_shared<const std::vector<float>>(std::move(of_reference));
    scored.rollout.truncated = json_truth(entry, "truncated", file_);
    scored.advantage = json_number(json_member(entry, "advantage", file_), "advantage", file_);
    return scored;
  }

 private:
  std::string file_;
};

}  // namespace

std::string generation_batch_text(const GenerationBatch& batch) {
  ordered_json completions = ordered_json::array();
  for (const auto& [row, rollout, ref_logprobs, advantage] : batch.completions)
    completions.push_back({{"row", row},
                           {"completion_ids", rollout.ids},
                           {"logprobs", rollout.logprobs},
                           {"ref_logprobs", ref_logprobs ? *ref_logprobs : std::vector<float>()},
                           {"truncated", rollout.truncated},
                           {"advantage", advantage}});
  return ordered_json{{"draw", batch.draw}, {"completions", completions}}.dump() + "\n";
}

GenerationBatch read_generation_batch(std::string_view text, const std::string& file, int64_t rows,
                                      int64_t vocab_size) {
  const ordered_json json = parse_json(text, file);
  const Reading reading(file);
  GenerationBatch batch;
  batch.draw = reading.integer(json, "draw", -1, INT64_MAX);
  for (const ordered_json& entry : json_list(json, "completions", file))
    batch.completions.push_back(reading.completion(entry, rows, vocab_size));
  return batch;
}

void save_generation_batch(const std::filesystem::path& folder, const GenerationBatch& batch) {
  write_file_atomically(folder / file_name, generation_batch_text(batch));
}

GenerationBatch load_generation_batch(const std::filesystem::path& folder, int64_t rows, int64_t vocab_size) {
  const std::filesystem::path path = folder / file_name;
  return read_generation_batch(file_text(path), path.string(), rows, vocab_size);
}

}  // namespace lathe::train
