#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "core/error.h"
#include "nn/layer_layout.h"
#include "nn/weights/stacked_experts.h"

namespace lathe::nn {
namespace {

// A stacked tensor: of each expert one linear, or gate and up, in turn or, upright, gate first.
struct Stack {
  std::vector<std::vector<std::string>> parts;  // [E][1 or 2], the weights' names
  bool upright = false;
  Shape part = {};  // of each
  bool is_bias() const { return part.rank() == 1; }
  int64_t linears() const { return static_cast<int64_t>(parts[0].size()); }
  int64_t rows_of_expert() const { return is_bias() ? 1 : upright ? part[0] * linears() : part[1]; }
  int64_t columns() const { return upright ? part[1] : part[0] * linears(); }
};

class JoinedExperts final : public WeightSource {
 public:
  JoinedExperts(const WeightSource& source, const ModelConfig& config) : source_(source) {
    std::set<std::string> placed;
    for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
      const LayerLayout layer = layer_layout(config, i);
      if (layer.experts.empty()) continue;
      const std::string prefix = layer_prefix(i);
      const bool upright = config.experts.stacked == StackedExperts::gate_before_up;
      const auto add = [&](const std::string& stored, const std::vector<LinearShape ExpertShape::*>& linears,
                           const std::string& suffix) {
        Stack stack{.parts = {}, .upright = upright};
        for (const ExpertShape& expert : layer.experts) {
          stack.parts.emplace_back();
          for (const auto linear : linears) stack.parts.back().push_back(prefix + (expert.*linear).name + suffix);
          placed.insert(stack.parts.back().begin(), stack.parts.back().end());
        }
        add_stack(prefix + config.experts.module + stored, std::move(stack));
      };
      const std::vector<LinearShape ExpertShape::*> gate_up = {&ExpertShape::gate_proj, &ExpertShape::up_proj};
      const std::vector<LinearShape ExpertShape::*> down = {&ExpertShape::down_proj};
      if (upright) {
        add(".input_linear.weight", gate_up, ".weight");
        add(".output_linear.weight", down, ".weight");
        continue;
      }
      add(".experts.gate_up_proj", gate_up, ".weight");
      add(".experts.gate_up_proj_bias", gate_up, ".bias");
      add(".experts.down_proj", down, ".weight");
      add(".experts.down_proj_bias", down, ".bias");
    }
    for (const WeightInfo& info : source.weights())
      if (!placed.contains(info.name)) infos_.push_back(info);
  }

  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found =
        std::find_if(infos_.begin(), infos_.end(), [&](const WeightInfo& info) { return info.name == name; });
    return found == infos_.end() ? nullptr : &*found;
  }
  void release_pages() const override { source_.release_pages(); }
  std::optional<kernels::StoredWeight> codes(std::string_view name) const override { return source_.codes(name); }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = stacks_.find(name);
    if (found == stacks_.end()) return source_.read_rows(name, first, count, out);
    const Stack& stack = found->second;
    const int64_t per_expert = stack.rows_of_expert(), columns = stack.columns();
    for (int64_t row = first; row < first + count;) {
      const int64_t expert = row / per_expert, within = row % per_expert;
      const int64_t some = std::min(per_expert - within, first + count - row);
      const Rows rows = expert_of(stack, expert);
      out = std::copy_n(rows->data() + within * columns, some * columns, out);
      row += some;
    }
  }

 private:
  using Rows = std::shared_ptr<const std::vector<float>>;
  struct Held {
    const std::vector<std::string>* names = nullptr;  // which expert's
    Rows rows;
  };

  void add_stack(std::string name, Stack stack) {
    int64_t bytes = 0;
    const WeightInfo* any = nullptr;
    for (const std::vector<std::string>& expert : stack.parts)
      for (const std::string& part : expert) {
        const WeightInfo* info = source_.find(part);
        if (info == nullptr) throw FormatError("the model's weights", -1, part + " is missing");
        any = info;
        bytes += info->stored_bytes;
      }
    stack.part = any->shape;
    const auto experts = static_cast<int64_t>(stack.parts.size());
    const Shape shape =
        stack.is_bias() ? Shape{experts, stack.columns()} : Shape{experts, stack.rows_of_expert(), stack.columns()};
    infos_.push_back({name, name, any->stored_type, shape, bytes});
    stacks_.emplace(std::move(name), std::move(stack));
  }

  // All of an expert's rows: each of them has an element of every row of its linears, so that these are read once, for
  // the last two experts that were asked for (threads may be at the end of one and the start of the next).
  Rows expert_of(const Stack& stack, int64_t expert) const {
    const std::lock_guard lock(mutex_);
    const std::vector<std::string>& names = stack.parts.at(static_cast<size_t>(expert));
    for (const Held& held : held_)
      if (held.names == &names) return held.rows;
    held_[0] = std::exchange(held_[1], {&names, std::make_shared<const std::vector<float>>(read_expert(stack, names))});
    return held_[1].rows;
  }

  std::vector<float> read_expert(const Stack& stack, const std::vector<std::string>& names) const {
    const auto step = static_cast<int64_t>(names.size()), rows = stack.part[0], columns = stack.part.numel() / rows;
    std::vector<float> all(static_cast<size_t>(rows * columns * step)), part(static_cast<size_t>(rows * columns));
    for (int64_t which = 0; which < step; ++which) {
      if (stack.upright) {
        source_.read_rows(names[static_cast<size_t>(which)], 0, rows, all.data() + which * rows * columns);
        continue;
      }
      source_.read_rows(names[static_cast<size_t>(which)], 0, stack.is_bias() ? 1 : rows, part.data());
      for (int64_t column = 0; column < columns; ++column)
        for (int64_t row = 0; row < rows; ++row)
          all[static_cast<size_t>((column * rows + row) * step + which)] =
              part[static_cast<size_t>(row * columns + column)];
    }
    return all;
  }

  const WeightSource& source_;
  std::vector<WeightInfo> infos_;
  std::map<std::string, Stack, std::less<>> stacks_;
  mutable std::mutex mutex_;
  mutable std::array<Held, 2> held_;
};

}  // namespace

std::unique_ptr<WeightSource> stack_experts(const WeightSource& source, const ModelConfig& config) {
  return std::make_unique<JoinedExperts>(source, config);
}

}  // namespace lathe::nn
