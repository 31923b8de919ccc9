// An objective that is not SFT's: it learns several times from the rows that were hard when they were new, as GRPO
// learns from rollouts, and follows the loss with a moving average over the whole run. What it holds between steps is
// its state.
#pragma once

#include <algorithm>
#include <vector>

#include "core/atomic_write.h"
#include "core/json_value.h"
#include "tests/train/tiny_run.h"

namespace lathe::train {

class HeldRowsObjective final : public Objective {
 public:
  HeldRowsObjective(nn::Transformer& model, const TrainingSet& rows, const TrainingSettings& settings, int64_t updates,
                    std::string name)
      : model_(model),
        set_(rows),
        settings_(settings),
        learn_(model, rows, nullptr, settings),
        updates_(updates),
        name_(std::move(name)) {}

  int64_t rows() const override { return set_.rows(); }
  uint64_t fingerprint() const override { return set_.fingerprint(); }
  int64_t updates_per_rows() const override { return updates_; }

  QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) override {
    const bool fresh = step % updates_ == 0;
    if (fresh) hold(rows);
    if (!std::equal(rows.begin(), rows.end(), held_.begin(), held_.end()))
      throw Error("step " + std::to_string(step) + " has other rows than its first update");
    QueuedStep queued = learn_.accumulate(hard_, step, loss_scale);
    queued.outcome = [this, fresh, learnt = std::move(queued.outcome)] {
      StepOutcome outcome = learnt();
      average_ = 0.75 * average_ + 0.25 * outcome.loss;
      outcome.metrics = {{"average_loss", average_}};
      if (fresh) outcome.metrics.emplace_back("hard_rows", static_cast<double>(hard_.size()));
      return outcome;
    };
    return queued;
  }

  Metrics evaluate() override { return {}; }

  std::string_view state_name() const override { return name_; }
  void save_state(const std::filesystem::path& folder) const override {
    write_file_atomically(folder / "average.json", nlohmann::json(average_).dump());
    write_file_atomically(folder / "rows.json", nlohmann::json{{"held", held_}, {"hard", hard_}}.dump());
  }
  void load_state(const std::filesystem::path& folder) override {
    average_ = nlohmann::json::parse(bytes_of(folder / "average.json")).get<double>();
    const auto rows = nlohmann::json::parse(bytes_of(folder / "rows.json"));
    held_ = rows.at("held").get<std::vector<int64_t>>();
    hard_ = rows.at("hard").get<std::vector<int64_t>>();
  }

 private:
  // Which rows are hard depends on the weights as they are now: later it cannot be found out again.
  void hold(std::span<const int64_t> rows) {
    held_.assign(rows.begin(), rows.end());
    std::vector<std::pair<double, int64_t>> losses;
    for (const int64_t row : rows) {
      TrainingSet alone;
      const int64_t sequence = set_.sequences_of_row(row).first;
      std::vector<int32_t> ids, labels;
      set_.append_sequence(sequence, ids, labels);
      alone.add_row(ids, labels);
      losses.emplace_back(SftObjective(model_, alone, &alone, settings_).evaluate()[0].second, row);
    }
    std::sort(losses.rbegin(), losses.rend());
    losses.resize((losses.size() + 1) / 2);
    hard_.clear();
    for (const auto& [loss, row] : losses) hard_.push_back(row);
  }

  nn::Transformer& model_;
  const TrainingSet& set_;
  const TrainingSettings& settings_;
  SftObjective learn_;
  int64_t updates_;
  std::string name_;
  double average_ = 0;
  std::vector<int64_t> held_, hard_;
};

inline MakeObjective held_rows(int64_t updates, const std::string& name = "held_rows") {
  return [updates, name](nn::Transformer& model, const TrainingSet& rows, const SftConfig& config) {
    return std::make_unique<HeldRowsObjective>(model, rows, config, updates, name);
  };
}

}  // namespace lathe::train
