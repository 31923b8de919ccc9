#include "nn/weights/scaled_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/families/text_config.h"
#include "nn/weights/dequantized_linears.h"

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::string_view e4m3 = "F8_E4M3";

// Four bits of exponent, three of fraction; no infinities (Micikevicius et al. 2022, "FP8 Formats for Deep Learning").
float e4m3_value(int code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<float>::quiet_NaN();
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                   : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return code & 128 ? -size : size;
}

std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (int code = 0; code < 256; ++code) values[static_cast<size_t>(code)] = e4m3_value(code);
  return values;
}

// Which scale a weight has: groups of rows and of columns, or a list of the columns' groups.
struct ScaleGrid {
  Tensor scales;  // floating [row groups, column groups]
  int64_t block_rows = 1, block_columns = 1;
  std::vector<int32_t> group_of;  // [in], where groups are no neighbours
};

struct ScaledLinear {
  Tensor codes;  // u8 or i8 [out, in], or i32 of packed codes
  bool is_float = false;
  int64_t bits = 8, out = 0, in = 0;
  ScaleGrid grid;
  Tensor zeros;  // i8 like the scales, or i32 packed; undefined: none
  bool rounds_to_scales = false;
  int64_t stored_bytes = 0;
};

int packed_number(const Tensor& words, int64_t row_word, int64_t stride, int64_t index, int64_t bits) {
  const int64_t per_word = 32 / bits;
  const auto word = static_cast<uint32_t>(words.data<int32_t>()[row_word + index / per_word * stride]);
  const uint32_t code = word >> (index % per_word * bits) & ((1u << bits) - 1);
  return static_cast<int>(code) - (1 << (bits - 1));
}

class ScaledRows final : public StoredLinear {
 public:
  explicit ScaledRows(ScaledLinear linear) : linear_(std::move(linear)) {}
  int64_t out() const override { return linear_.out; }
  int64_t in() const override { return linear_.in; }
  std::string stored_type() const override {
    return linear_.is_float ? std::string(e4m3) : "I" + std::to_string(linear_.bits);
  }
  int64_t stored_bytes() const override { return linear_.stored_bytes; }

  void read_rows(int64_t first, int64_t count, float* values) const override {
    for (int64_t o = first; o < first + count; ++o) read_row(o, values + (o - first) * linear_.in);
  }

 private:
  void read_row(int64_t o, float* values) const {
    static const std::array<float, 256> floats = e4m3_values();
    const Tensor& codes = linear_.codes;
    if (linear_.is_float) {
      const uint8_t* row = codes.data<uint8_t>() + o * linear_.in;
      scale_row(o, values, [row](int64_t i) { return floats[row[i]]; });
    } else if (codes.dtype() == DType::i8) {
      const int8_t* row = codes.data<int8_t>() + o * linear_.in;
      scale_row(o, values, [row](int64_t i) { return static_cast<float>(row[i]); });
    } else {
      const int64_t first = o * codes.dim(1), bits = linear_.bits;
      scale_row(o, values, [&codes, first, bits](int64_t i) {
        return static_cast<float>(packed_number(codes, first, 1, i, bits));
      });
    }
  }

  template <class Number>
  void scale_row(int64_t o, float* values, const Number& number) const {
    const ScaleGrid& grid = linear_.grid;
    const DType dtype = grid.scales.dtype();
    const int64_t first = o / grid.block_rows * grid.scales.dim(1),
                  step = grid.group_of.empty() ? grid.block_columns : 1;
    for (int64_t begin = 0; begin < linear_.in; begin += step) {
      const int64_t group = grid.group_of.empty() ? begin / step : grid.group_of[static_cast<size_t>(begin)];
      const float scale = number_at(grid.scales, first + group), zero_point = zero(o, group, first + group);
      for (int64_t i = begin; i < std::min(begin + step, linear_.in); ++i) {
        const float value = (number(i) - zero_point) * scale;
        values[i] = linear_.rounds_to_scales ? rounded(dtype, value) : value;
      }
    }
  }

  float zero(int64_t o, int64_t group, int64_t at) const {
    if (!linear_.zeros.defined()) return 0;
    if (linear_.zeros.dtype() == DType::i8) return linear_.zeros.data<int8_t>()[at];
    return static_cast<float>(packed_number(linear_.zeros, group, linear_.zeros.dim(1), o, linear_.bits));
  }

  ScaledLinear linear_;
};

// The parts of one linear in its files.
class ScaledReader {
 public:
  using Files = std::map<std::string, std::shared_ptr<const SafetensorsFile>, std::less<>>;
  ScaledReader(const Files& files, std::string module, const ScaledQuantization& quantization)
      : files_(files), module_(std::move(module)), quantization_(quantization) {}

  ScaledLinear read() const {
    ScaledLinear linear;
    if (files_.contains(module_ + ".weight_packed")) {
      read_packed(linear);
    } else {
      read_plain(linear);
    }
    linear.stored_bytes = linear.codes.nbytes();
    linear.rounds_to_scales = quantization_.method == ScaledMethod::compressed_tensors;
    read_grid(linear);
    read_zeros(linear);
    return linear;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    const auto found = files_.lower_bound(module_);
    throw FormatError(found->second->path().string(), -1, module_ + ": " + reason);
  }
  bool has(const char* suffix) const { return files_.contains(module_ + suffix); }
  Tensor part(const char* suffix) const {
    const auto found = files_.find(module_ + suffix);
    if (found == files_.end()) fail("its " + module_ + suffix + " is missing");
    return found->second->tensor(module_ + suffix);
  }

  void read_plain(ScaledLinear& linear) const {
    const std::string name = module_ + ".weight";
    const auto& file = files_.find(name)->second;
    linear.is_float = file->type(name) == e4m3;
    linear.codes = linear.is_float ? file->bytes(name) : file->tensor(name);
    if (linear.codes.rank() != 2 || linear.codes.numel() == 0)
      fail("expected a matrix of codes, found " + describe(linear.codes));
    linear.out = linear.codes.dim(0), linear.in = linear.codes.dim(1);
  }

  void read_packed(ScaledLinear& linear) const {
    linear.codes = part(".weight_packed");
    const Tensor shape = part(".weight_shape");
    if (linear.codes.rank() != 2 || linear.codes.dtype() != DType::i32 || shape.numel() != 2 ||
        (shape.dtype() != DType::i64 && shape.dtype() != DType::i32))
      fail("expected a matrix of i32 and its two extents in weight_packed and weight_shape, found " +
           describe(linear.codes) + " and " + describe(shape));
    const auto extent = [&](int64_t i) {
      return shape.dtype() == DType::i64 ? shape.data<int64_t>()[i] : int64_t{shape.data<int32_t>()[i]};
    };
    linear.out = extent(0), linear.in = extent(1);
    const int64_t words = linear.codes.dim(1);
    const auto fits = [&](int64_t bits) {
      return linear.in <= words * 32 / bits && linear.in > (words - 1) * 32 / bits;
    };
    linear.bits = fits(4) ? 4 : 8;
    if (linear.out < 1 || linear.in < 1 || linear.codes.dim(0) != linear.out || !fits(linear.bits))
      fail("expected [" + std::to_string(linear.out) + ", " + std::to_string(linear.in) +
           "] in codes of 4 or 8 bits, found weight_packed " + to_string(linear.codes.shape()));
  }

  void read_grid(ScaledLinear& linear) const {
    const bool plain_name = quantization_.method != ScaledMethod::fp8 || has(".weight_scale");  // AutoFP8's
    Tensor scales = part(plain_name ? ".weight_scale" : ".weight_scale_inv");
    if (!is_floating(scales.dtype()) || scales.dtype() == DType::f64 || scales.numel() == 0 || scales.rank() > 2)
      fail("expected floating scales, found " + describe(scales));
    linear.stored_bytes += scales.nbytes();
    if (scales.rank() < 2) scales = scales.view({scales.numel(), 1});
    ScaleGrid& grid = linear.grid;
    grid.scales = scales;
    const int64_t rows = scales.dim(0), columns = scales.dim(1);
    const auto groups = [](int64_t extent, int64_t block) { return (extent + block - 1) / block; };
    const int64_t by_rows = quantization_.block_rows, by_columns = quantization_.block_columns;
    if (by_rows > 0 && rows == groups(linear.out, by_rows) && columns == groups(linear.in, by_columns)) {
      grid.block_rows = by_rows, grid.block_columns = by_columns;
    } else if (linear.out % rows == 0 && linear.in % columns == 0) {
      grid.block_rows = linear.out / rows, grid.block_columns = linear.in / columns;
    } else {
      fail("scales " + to_string(scales.shape()) + " do not divide its [" + std::to_string(linear.out) + ", " +
           std::to_string(linear.in) + "]");
    }
    if (has(".weight_g_idx")) read_groups(columns, linear);
  }

  void read_groups(int64_t groups, ScaledLinear& linear) const {
    const Tensor indices = part(".weight_g_idx");
    if (indices.dtype() != DType::i32 || indices.numel() != linear.in)
      fail("expected a group for each of " + std::to_string(linear.in) + " columns in its weight_g_idx, found " +
           describe(indices));
    for (const int32_t group : indices.span<int32_t>()) {
      if (group < 0 || group >= groups)
        fail("weight_g_idx has group " + std::to_string(group) + " of " + std::to_string(groups));
      linear.grid.group_of.push_back(group);
    }
  }

  void read_zeros(ScaledLinear& linear) const {
    if (!has(".weight_zero_point") || linear.is_float) return;
    const Tensor &zeros = part(".weight_zero_point"), &scales = linear.grid.scales;
    const Shape packed{(linear.out * linear.bits + 31) / 32, scales.dim(1)};
    const bool as_bytes = zeros.dtype() == DType::i8 && zeros.numel() == scales.numel(),
               as_words = zeros.dtype() == DType::i32 && zeros.shape() == packed && scales.dim(0) == linear.out;
    if (!as_bytes && !as_words)
      fail("expected zero points like its scales " + to_string(scales.shape()) + ", or packed in i32 " +
           to_string(packed) + ", found " + describe(zeros));
    linear.zeros = zeros;
    linear.stored_bytes += zeros.nbytes();
  }

  const Files& files_;
  std::string module_;
  const ScaledQuantization& quantization_;
};

[[noreturn]] void refuse(const char* key, const std::string& what, const std::string& file) {
  throw ConfigError(std::string("quantization_config.") + key, what + ", in " + file);
}

std::string word_of(const ordered_json& object, const char* key, const std::string& file) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string()) refuse(key, "expected a word, found " + json_excerpt(*found), file);
  return found->get<std::string>();
}

void read_block(const ordered_json& object, const char* key, const std::string& file, ScaledQuantization& result) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return;
  if (!found->is_array() || found->size() != 2)
    refuse(key, "expected the extents of a block, found " + json_excerpt(*found), file);
  const std::string name = std::string("quantization_config.") + key;
  result.block_rows = json_integer((*found)[0], name, 1, INT32_MAX, file);
  result.block_columns = json_integer((*found)[1], name, 1, INT32_MAX, file);
}

void read_compressed_tensors(const ordered_json& config, const std::string& file, ScaledQuantization& result) {
  const std::string format = word_of(config, "format", file);
  constexpr std::string_view formats[] = {"float-quantized", "naive-quantized", "int-quantized", "pack-quantized",
                                          "mixed-precision"};
  if (std::ranges::find(formats, format) == std::ranges::end(formats))
    refuse("format",
           "compressed-tensors is read as float-quantized, naive-quantized, int-quantized and pack-quantized, found " +
               json_excerpt(format),
           file);
  if (const auto sparse = config.find("sparsity_config"); sparse != config.end() && sparse->is_object())
    if (const std::string kind = word_of(*sparse, "format", file); !kind.empty() && kind != "dense")
      refuse("sparsity_config", "sparse weights are not read here, found " + json_excerpt(kind), file);
  if (const auto transform = config.find("transform_config"); transform != config.end() && !transform->empty())
    refuse("transform_config", "weights that are turned before they are quantised are not read here", file);
  const auto groups = config.find("config_groups");
  if (groups == config.end() || !groups->is_object()) return;
  for (const auto& [name, group] : groups->items())
    if (group.is_object() && group.contains("weights") && group["weights"].is_object())
      read_block(group["weights"], "block_structure", file, result);
}

// Of what a linear has beside X.weight: its parts, and what is said of activations.
constexpr std::string_view part_suffixes[] = {
    ".weight_packed",     ".weight_scale", ".weight_scale_inv", ".weight_shape",     ".weight_zero_point",
    ".weight_g_idx",      ".input_scale",  ".input_zero_point", ".activation_scale", ".output_scale",
    ".output_zero_point", ".k_scale",      ".v_scale",          ".q_scale",          ".kv_scale"};

bool is_part(const std::string& name) {
  return std::ranges::any_of(part_suffixes, [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

std::optional<ScaledQuantization> scaled_quantization_of(const fs::path& directory) {
  const std::string file = (directory / "config.json").string();
  const ordered_json whole = read_json_file(file);
  const ordered_json* const found = quantization_config(whole);
  if (found == nullptr || !found->is_object()) return std::nullopt;
  const std::string method = word_of(*found, "quant_method", file);
  ScaledQuantization result;
  if (method == "fp8") {
    if (word_of(*found, "scale_fmt", file) == "ue8m0" || word_of(*found, "expert_dtype", file) == "fp4")
      refuse("scale_fmt", "scales that are powers of two in 8 bits, and experts in 4, are not read here", file);
    read_block(*found, "weight_block_size", file, result);
  } else if (method == "compressed-tensors") {
    result.method = ScaledMethod::compressed_tensors;
    read_compressed_tensors(*found, file, result);
  } else if (method == "modelopt") {
    result.method = ScaledMethod::modelopt;
    if (const std::string kind = word_of(*found, "quant_algo", file); kind != "FP8")
      refuse("quant_algo", "ModelOpt's weights are read in FP8, found " + json_excerpt(kind), file);
  } else {
    return std::nullopt;
  }
  return result;
}

std::unique_ptr<WeightSource> open_scaled_weights(const fs::path& directory, const ScaledQuantization& quantization) {
  const SafetensorsTensors tensors = safetensors_tensors(directory);
  const ScaledReader::Files by_name(tensors.begin(), tensors.end());
  StoredLinears linears;
  std::set<std::string> parts;
  for (const auto& [name, file] : tensors) {
    if (is_part(name)) parts.insert(name);
    const bool packed = name.ends_with(".weight_packed");
    const bool codes = name.ends_with(".weight") && (file->type(name) == e4m3 || file->type(name) == "I8");
    if (!packed && !codes) continue;
    parts.insert(name);
    const std::string module = name.substr(0, name.rfind('.'));
    linears[module + ".weight"] = std::make_unique<ScaledRows>(ScaledReader(by_name, module, quantization).read());
  }
  if (linears.empty())
    throw FormatError((directory / "config.json").string(), -1,
                      "says that the weights are quantised, but there are none of 8 bits and no .weight_packed among "
                      "them");
  return with_linears(tensors, parts, std::move(linears));
}

}  // namespace lathe::nn
