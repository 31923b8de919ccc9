#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "nn/weights/stacked_experts.h"

namespace lathe::nn {
namespace {

constexpr std::string_view block = ".experts.";  // what stands before a stacked tensor's name
// Granite's, how many linears each holds, and their module: a block that all tokens go through calls its own the same.
constexpr std::string_view upright_module = ".block_sparse_moe";
constexpr std::array<std::pair<std::string_view, int64_t>, 2> upright_parts = {
    {{".input_linear.weight", 2}, {".output_linear.weight", 1}}};
constexpr int64_t mxfp4_elements = 32, mxfp4_bytes = 16;

// e2m1: a sign, two bits of exponent, one of mantissa.
constexpr std::array<float, 16> mxfp4_values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                                -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

constexpr std::string_view gate_up_part = "gate_up_proj", down_part = "down_proj";

// A stacked tensor, and which of its rows belong to a linear: one of `linears`, from `begin` on, `step` apart.
struct StackedLinear {
  // [E, in, rows of all], or upright [E, rows of all, in], or, of biases, [E, rows of all]; undefined in MXFP4
  Tensor values;
  Tensor blocks, scales;  // MXFP4
  bool upright = false;
  int64_t linears = 1, begin = 0, step = 1;

  bool is_bias() const { return values.defined() && values.rank() == 2; }
  int64_t experts() const { return (values.defined() ? values : blocks).dim(0); }
  int64_t all_rows() const { return values.defined() ? values.dim(upright ? 1 : -1) : blocks.dim(1); }
  int64_t rows() const { return all_rows() / linears; }
  int64_t columns() const { return values.defined() ? values.dim(upright ? 2 : 1) : blocks.dim(2) * mxfp4_elements; }
  Shape shape() const { return is_bias() ? Shape{rows()} : Shape{rows(), columns()}; }
  int64_t bytes_of_expert() const {
    const int64_t all = values.defined() ? values.nbytes() : blocks.nbytes() + scales.nbytes();
    return all / experts() / linears;
  }
  std::string type() const {
    if (!values.defined()) return "MXFP4";
    std::string name(name_of(values.dtype()));
    for (char& letter : name) letter = static_cast<char>(std::toupper(letter));
    return name;
  }
};

// In f32, contiguous.
void read_f32(const Tensor& matrix, float* out) {
  const auto storage = Storage::wrap(out, matrix.numel() * 4, {}, nullptr);
  kernels::copy(Tensor::from_storage(storage, 0, matrix.shape(), DType::f32), matrix);
}
std::vector<float> in_f32(const Tensor& matrix) {
  std::vector<float> all(static_cast<size_t>(matrix.numel()));
  read_f32(matrix, all.data());
  return all;
}

void read_transposed(const StackedLinear& stack, int64_t expert, int64_t first, int64_t count, float* out) {
  const int64_t step = stack.step, columns = stack.columns(), from = first * step, until = (first + count) * step;
  const std::vector<float> piece = in_f32(stack.values.select(0, expert).slice(1, from, until));
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t row = 0; row < count; ++row)
      out[row * columns + column] = piece[static_cast<size_t>((column * count + row) * step + stack.begin)];
}

void read_upright(const StackedLinear& stack, int64_t expert, int64_t first, int64_t count, float* out) {
  const int64_t from = stack.begin + first;
  read_f32(stack.values.select(0, expert).slice(0, from, from + count), out);
}

void read_bias(const StackedLinear& stack, int64_t expert, float* out) {
  const std::vector<float> all = in_f32(stack.values.slice(0, expert, expert + 1));
  for (int64_t row = 0; row < stack.rows(); ++row) out[row] = all[static_cast<size_t>(row * stack.step + stack.begin)];
}

void read_mxfp4(const StackedLinear& stack, int64_t expert, int64_t first, int64_t count, float* out) {
  const int64_t blocks = stack.blocks.dim(2);
  for (int64_t row = first; row < first + count; ++row) {
    const int64_t stored = expert * stack.blocks.dim(1) + row * stack.step + stack.begin;
    const uint8_t* codes = stack.blocks.data<uint8_t>() + stored * blocks * mxfp4_bytes;
    const uint8_t* scales = stack.scales.data<uint8_t>() + stored * blocks;
    for (int64_t b = 0; b < blocks; ++b, codes += mxfp4_bytes) {
      const float scale = std::ldexp(1.0f, scales[b] - 127);
      for (int64_t j = 0; j < mxfp4_bytes; ++j) {
        *out++ = mxfp4_values[codes[j] & 15] * scale;
        *out++ = mxfp4_values[codes[j] >> 4] * scale;
      }
    }
  }
}

// The same blocks as GGUF files have them: the scale before the codes, whose low bits are the first 16 elements'.
StoredBlocks ggml_blocks(const StackedLinear& stack, int64_t expert) {
  constexpr int64_t half = mxfp4_bytes, block_bytes = 1 + mxfp4_bytes;
  const int64_t rows = stack.rows(), blocks = stack.blocks.dim(2);
  auto made = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(rows * blocks * block_bytes));
  StoredBlocks found{kernels::GgmlFormat::mxfp4, {}, made};
  std::byte* out = made->data();
  for (int64_t row = 0; row < rows; ++row) {
    found.rows.push_back(out);
    const int64_t stored = expert * stack.blocks.dim(1) + row * stack.step + stack.begin;
    const uint8_t* codes = stack.blocks.data<uint8_t>() + stored * blocks * mxfp4_bytes;
    const uint8_t* scales = stack.scales.data<uint8_t>() + stored * blocks;
    for (int64_t b = 0; b < blocks; ++b, codes += mxfp4_bytes) {
      *out++ = static_cast<std::byte>(scales[b]);
      const auto code = [&](int64_t element) { return codes[element / 2] >> (element % 2 * 4) & 15; };
      for (int64_t j = 0; j < half; ++j) *out++ = static_cast<std::byte>(code(j) | code(j + half) << 4);
    }
  }
  return found;
}

class SplitExperts final : public WeightSource {
 public:
  SplitExperts(const SafetensorsTensors& tensors, StackedExperts kind)
      : upright_(kind == StackedExperts::gate_before_up), files_(tensors.begin(), tensors.end()) {
    SafetensorsTensors others;
    for (const auto& tensor : tensors)
      if (!add_stack(tensor.first)) others.push_back(tensor);
    others_ = open_safetensors_weights(others);
    infos_.insert(infos_.end(), others_->weights().begin(), others_->weights().end());
    for (size_t i = 0; i < infos_.size(); ++i) index_.emplace(infos_[i].name, i);
  }

  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = index_.find(std::string(name));
    return found == index_.end() ? nullptr : &infos_[found->second];
  }
  void release_pages() const override {
    for (const auto& [name, file] : files_) file->release_pages();
  }

  std::optional<StoredBlocks> blocks(std::string_view name) const override {
    const auto found = parts_.find(name);
    if (found == parts_.end()) return others_->blocks(name);
    const auto& [stack, expert] = found->second;
    return stack.values.defined() ? std::nullopt : std::optional(ggml_blocks(stack, expert));
  }

  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = parts_.find(name);
    if (found == parts_.end()) return others_->read_rows(name, first, count, out);
    const auto& [stack, expert] = found->second;
    if (stack.is_bias()) return read_bias(stack, expert, out);
    if (first < 0 || count < 0 || first > stack.rows() - count)
      throw ShapeError(std::string(name) + ": rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                       " asked of " + std::to_string(stack.rows()));
    if (stack.upright) return read_upright(stack, expert, first, count, out);
    stack.values.defined() ? read_transposed(stack, expert, first, count, out)
                           : read_mxfp4(stack, expert, first, count, out);
  }

 private:
  // Whether the tensor is one of those that are stacked.
  bool add_stack(const std::string& name) {
    for (const auto& [part, linears] : upright_parts) {
      if (!name.ends_with(std::string(upright_module) + std::string(part))) continue;
      StackedLinear all = plain(name, 3);
      all.upright = true;
      add_linears(name.substr(0, name.size() - part.size()) + std::string(block), ".weight", name, all, linears, 1);
      return true;
    }
    const size_t at = name.find(block);
    if (at == std::string::npos) return false;
    const std::string prefix = name.substr(0, at + block.size());
    std::string part = name.substr(prefix.size());
    const bool bias = part.ends_with("_bias"), blocks = part.ends_with("_blocks"), scales = part.ends_with("_scales");
    if (bias || blocks || scales) part.resize(part.rfind('_'));
    if (part != gate_up_part && part != down_part) return false;
    if (scales) {
      expect(files_.contains(prefix + part + "_blocks"), name, "has no " + part + "_blocks beside it");
      return true;
    }
    StackedLinear all = blocks ? mxfp4(prefix + part) : plain(name, bias ? 2 : 3);
    all.upright = upright_ && !blocks;
    const int64_t linears = part == down_part ? 1 : 2;
    add_linears(prefix, bias ? ".bias" : ".weight", name, all, linears, all.upright ? 1 : linears);
    return true;
  }

  // The down projection, or gate and up: two linears whose rows lie in turn (step 2), or gate's first (step 1).
  void add_linears(const std::string& prefix, const char* suffix, const std::string& stored, StackedLinear all,
                   int64_t linears, int64_t step) {
    all.linears = linears, all.step = step;
    if (linears == 1) return add_experts(prefix, "down_proj" + std::string(suffix), stored, all);
    expect(all.all_rows() % 2 == 0, stored, "expected rows of gate and of up, found an odd number of them");
    for (const int64_t which : {0, 1}) {
      all.begin = step == 2 ? which : which * all.rows();
      add_experts(prefix, (which == 0 ? "gate_proj" : "up_proj") + std::string(suffix), stored, all);
    }
  }

  StackedLinear plain(const std::string& name, int rank) const {
    const Tensor values = files_.at(name)->tensor(name);
    expect(is_floating(values.dtype()) && values.rank() == rank && values.numel() > 0, name,
           "expected " + std::to_string(rank) + " floating dimensions, found " + describe(values));
    return {.values = values, .blocks = {}, .scales = {}};
  }

  StackedLinear mxfp4(const std::string& stem) const {
    const std::string blocks_name = stem + "_blocks", scales_name = stem + "_scales";
    expect(files_.contains(scales_name), blocks_name, "has no " + scales_name + " beside it");
    const Tensor blocks = files_.at(blocks_name)->tensor(blocks_name);
    const Tensor scales = files_.at(scales_name)->tensor(scales_name);
    expect(blocks.dtype() == DType::u8 && blocks.rank() == 4 && blocks.dim(3) == mxfp4_bytes && blocks.numel() > 0,
           blocks_name, "expected u8 [experts, rows, blocks, 16], found " + describe(blocks));
    const Shape shape{blocks.dim(0), blocks.dim(1), blocks.dim(2)};
    expect(scales.dtype() == DType::u8 && scales.shape() == shape, scales_name,
           "expected u8 " + to_string(shape) + ", found " + describe(scales));
    return {.values = {}, .blocks = blocks, .scales = scales};
  }

  void add_experts(const std::string& prefix, const std::string& linear, const std::string& stored,
                   const StackedLinear& stack) {
    for (int64_t e = 0; e < stack.experts(); ++e) {
      const std::string name = prefix + std::to_string(e) + "." + linear;
      expect(parts_.emplace(name, Part{stack, e}).second, stored, "stands for " + name + ", as another tensor does");
      infos_.push_back({name, stored, stack.type(), stack.shape(), stack.bytes_of_expert()});
    }
  }

  void expect(bool holds, const std::string& name, const std::string& sentence) const {
    if (!holds) throw FormatError(files_.at(name)->path().string(), -1, name + ": " + sentence);
  }

  struct Part {
    StackedLinear stack;
    int64_t expert;
  };

  bool upright_;  // what transformers' names stand for
  std::map<std::string, std::shared_ptr<const SafetensorsFile>, std::less<>> files_;  // of each tensor
  std::unique_ptr<WeightSource> others_;
  std::vector<WeightInfo> infos_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, Part, std::less<>> parts_;
};

}  // namespace

bool has_stacked_experts(const SafetensorsTensors& tensors) {
  const std::string by_transformers = std::string(block) + std::string(gate_up_part),
                    upright = std::string(upright_module) + std::string(upright_parts[0].first);
  return std::any_of(tensors.begin(), tensors.end(), [&](const auto& tensor) {
    return tensor.first.ends_with(by_transformers) || tensor.first.ends_with(upright);
  });
}

std::unique_ptr<WeightSource> split_experts(const SafetensorsTensors& tensors, StackedExperts kind) {
  return std::make_unique<SplitExperts>(tensors, kind);
}

}  // namespace lathe::nn
