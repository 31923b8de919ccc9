#include "nn/weights/gptq_awq.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/families/text_config.h"
#include "nn/weights/dequantized_linears.h"

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::string_view code_suffix = ".qweight";

struct PackedLinear {
  Tensor qweight, qzeros, scales;
  std::vector<int32_t> group_of;  // [in]
  std::vector<uint8_t> zeros;     // [groups, out]
  int64_t in = 0, out = 0, stored_bytes = 0;
};

// Code `index` of a row of words that lie `stride` apart.
uint32_t code_at(const uint32_t* words, int64_t stride, int64_t index, int64_t bits) {
  const int64_t bit = index * bits, word = bit / 32, shift = bit % 32;
  uint32_t code = words[word * stride] >> shift;
  if (shift + bits > 32) code |= words[(word + 1) * stride] << (32 - shift);
  return code & ((1u << bits) - 1);
}

// Where column c of eight lies in a word of AWQ: the order 0 2 4 6 1 3 5 7, inverted.
constexpr std::array<int, 8> awq_place = {0, 4, 1, 5, 2, 6, 3, 7};
uint32_t awq_code_at(const uint32_t* words, int64_t column) {
  return (words[column / 8] >> (4 * awq_place[static_cast<size_t>(column % 8)])) & 15;
}

// 0x11111111 for 4 bits: one in every code.
uint32_t one_in_each(int64_t bits) {
  uint32_t ones = 0;
  for (int64_t at = 0; at < 32; at += bits) ones |= 1u << at;
  return ones;
}

// The parts of one linear in its files.
class LinearReader {
 public:
  using Files = std::map<std::string, std::shared_ptr<const SafetensorsFile>, std::less<>>;
  LinearReader(const Files& files, std::string module, const PackedQuantization& quantization)
      : files_(files), module_(std::move(module)), quantization_(quantization) {}

  PackedLinear read() const {
    const int64_t bits = quantization_.bits;
    PackedLinear linear;
    linear.qweight = matrix(".qweight");
    linear.qzeros = matrix(".qzeros");
    linear.scales = part(".scales");
    if (linear.scales.rank() != 2 || !is_floating(linear.scales.dtype()) || linear.scales.dtype() == DType::f64)
      fail("expected floating scales [groups, out], found " + describe(linear.scales));
    const bool gptq = quantization_.method == PackedMethod::gptq;
    const int64_t packed = linear.qweight.dim(gptq ? 0 : 1);
    if (packed * 32 % bits != 0) fail("its codes end inside a code of " + std::to_string(bits) + " bits");
    linear.in = gptq ? packed * 32 / bits : linear.qweight.dim(0);
    linear.out = gptq ? linear.qweight.dim(1) : packed * 32 / bits;
    const int64_t groups = linear.scales.dim(0);
    const Shape zero_shape{groups, (linear.out * bits + 31) / 32};
    if (groups < 1 || linear.scales.dim(1) != linear.out || linear.qzeros.shape() != zero_shape)
      fail("expected scales [groups, " + std::to_string(linear.out) + "] and qzeros " + to_string(zero_shape) +
           " beside these codes, found " + to_string(linear.scales.shape()) + " and " +
           to_string(linear.qzeros.shape()));
    read_groups(groups, linear);
    read_zeros(groups, linear);
    linear.stored_bytes = linear.qweight.nbytes() + linear.qzeros.nbytes() + linear.scales.nbytes();
    return linear;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    const auto found = files_.find(module_ + std::string(code_suffix));
    throw FormatError(found->second->path().string(), -1, module_ + ": " + reason);
  }
  Tensor part(const char* suffix) const {
    const auto found = files_.find(module_ + suffix);
    if (found == files_.end()) fail("its " + module_ + suffix + " is missing");
    return found->second->tensor(module_ + suffix);
  }
  Tensor matrix(const char* suffix) const {
    const Tensor tensor = part(suffix);
    if (tensor.rank() != 2 || tensor.dtype() != DType::i32 || tensor.numel() == 0)
      fail("expected a matrix of i32 in its " + module_ + suffix + ", found " + describe(tensor));
    return tensor;
  }

  void read_groups(int64_t groups, PackedLinear& linear) const {
    const int64_t size = quantization_.group_size < 0 ? linear.in : quantization_.group_size;
    linear.group_of.resize(static_cast<size_t>(linear.in));
    if (!files_.contains(module_ + ".g_idx") || quantization_.method == PackedMethod::awq) {
      if ((linear.in + size - 1) / size != groups)
        fail(std::to_string(linear.in) + " columns in groups of " + std::to_string(size) +
             " need another number of "
             "scales than " +
             std::to_string(groups) + "; does group_size belong to these weights?");
      for (int64_t i = 0; i < linear.in; ++i) linear.group_of[static_cast<size_t>(i)] = static_cast<int32_t>(i / size);
      return;
    }
    const Tensor indices = part(".g_idx");
    if (indices.dtype() != DType::i32 || indices.shape() != Shape{linear.in})
      fail("expected a group for each of " + std::to_string(linear.in) + " columns in its g_idx, found " +
           describe(indices));
    for (int64_t i = 0; i < linear.in; ++i) {
      const int32_t group = indices.data<int32_t>()[i];
      if (group < 0 || group >= groups)
        fail("column " + std::to_string(i) + " is of group " + std::to_string(group) + ", but there are " +
             std::to_string(groups));
      linear.group_of[static_cast<size_t>(i)] = group;
    }
  }

  void read_zeros(int64_t groups, PackedLinear& linear) const {
    const int64_t bits = quantization_.bits, words = linear.qzeros.dim(1);
    const bool whole_words = 32 % bits == 0;
    const auto* stored = reinterpret_cast<const uint32_t*>(linear.qzeros.data<int32_t>());
    std::vector<uint32_t> row(static_cast<size_t>(words));
    linear.zeros.resize(static_cast<size_t>(groups * linear.out));
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t w = 0; w < words; ++w) {
        row[static_cast<size_t>(w)] = stored[group * words + w];
        if (quantization_.zeros_less_one && whole_words) row[static_cast<size_t>(w)] += one_in_each(bits);
      }
      for (int64_t o = 0; o < linear.out; ++o) {
        uint32_t zero =
            quantization_.method == PackedMethod::awq ? awq_code_at(row.data(), o) : code_at(row.data(), 1, o, bits);
        if (quantization_.zeros_less_one && !whole_words) zero = (zero + 1) & ((1u << bits) - 1);
        linear.zeros[static_cast<size_t>(group * linear.out + o)] = static_cast<uint8_t>(zero);
      }
    }
  }

  const Files& files_;
  std::string module_;
  const PackedQuantization& quantization_;
};

// A PackedLinear as it is read.
class DequantizedLinear final : public StoredLinear {
 public:
  DequantizedLinear(PackedLinear linear, const PackedQuantization& quantization)
      : linear_(std::move(linear)), quantization_(quantization) {}
  int64_t out() const override { return linear_.out; }
  int64_t in() const override { return linear_.in; }
  std::string stored_type() const override {
    return (quantization_.method == PackedMethod::gptq ? "GPTQ" : "AWQ") + std::to_string(quantization_.bits);
  }
  int64_t stored_bytes() const override { return linear_.stored_bytes; }
  void read_rows(int64_t first, int64_t count, float* values) const override {
    const bool gptq = quantization_.method == PackedMethod::gptq;
    const auto* words = reinterpret_cast<const uint32_t*>(linear_.qweight.data<int32_t>());
    const int64_t stride = linear_.qweight.dim(1);
    const DType dtype = linear_.scales.dtype();
    for (int64_t i = 0; i < linear_.in; ++i) {
      const int64_t group_row = int64_t{linear_.group_of[static_cast<size_t>(i)]} * linear_.out;
      for (int64_t r = 0; r < count; ++r) {
        const int64_t o = first + r;
        const uint32_t code =
            gptq ? code_at(words + o, stride, i, quantization_.bits) : awq_code_at(words + i * stride, o);
        const int difference = static_cast<int>(code) - linear_.zeros[static_cast<size_t>(group_row + o)];
        values[r * linear_.in + i] =
            rounded(dtype, number_at(linear_.scales, group_row + o) * static_cast<float>(difference));
      }
    }
  }

 private:
  PackedLinear linear_;
  PackedQuantization quantization_;
};

std::string word_in(const ordered_json& config, std::initializer_list<const char*> keys, const char* otherwise,
                    const std::string& file) {
  for (const char* key : keys) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) continue;
    if (!found->is_string())
      throw FormatError(file, -1,
                        std::string("quantization_config.") + key + ": expected a word, found " + json_excerpt(*found));
    std::string word = found->get<std::string>();
    std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
    return word;
  }
  return otherwise;
}

int64_t integer_in(const ordered_json& config, std::initializer_list<const char*> keys, int64_t otherwise,
                   int64_t least, int64_t most, const std::string& file) {
  for (const char* key : keys)
    if (const auto found = config.find(key); found != config.end() && !found->is_null())
      return json_integer(*found, std::string("quantization_config.") + key, least, most, file);
  return otherwise;
}

PackedQuantization read_quantization(const ordered_json& config, PackedMethod method, const std::string& file) {
  PackedQuantization result;
  result.method = method;
  result.bits = integer_in(config, {"bits", "w_bit"}, 4, 1, 32, file);
  result.group_size = integer_in(config, {"group_size", "q_group_size"}, 128, -1, INT32_MAX, file);
  const auto refuse = [&](const char* key, const std::string& what) {
    throw ConfigError(std::string("quantization_config.") + key, what + " in " + file);
  };
  if (result.group_size == 0) refuse("group_size", "expected -1 or a positive number, found 0");
  if (method == PackedMethod::awq) {
    result.zeros_less_one = false;
    if (result.bits != 4) refuse("bits", "AWQ is read in 4 bits, found " + std::to_string(result.bits));
    const std::string version = word_in(config, {"version"}, "gemm", file);
    if (version != "gemm") refuse("version", "AWQ is read in the layout of gemm, found " + json_excerpt(version));
    return result;
  }
  if (result.bits != 2 && result.bits != 3 && result.bits != 4 && result.bits != 8)
    refuse("bits", "GPTQ is read in 2, 3, 4 and 8 bits, found " + std::to_string(result.bits));
  const std::string format = word_in(config, {"checkpoint_format", "format"}, "gptq", file);
  if (format != "gptq" && format != "gptq_v2")
    refuse("checkpoint_format", "GPTQ is read in the formats gptq and gptq_v2, found " + json_excerpt(format));
  result.zeros_less_one = format == "gptq";
  return result;
}

}  // namespace

std::optional<PackedQuantization> packed_quantization_of(const fs::path& directory) {
  const fs::path path = directory / "config.json", early = directory / "quantize_config.json";
  const ordered_json config = read_json_file(path);
  const ordered_json* const found = quantization_config(config);
  if (found != nullptr && found->is_object()) {
    const std::string method = word_in(*found, {"quant_method"}, "", path.string());
    if (method != "gptq" && method != "awq") return std::nullopt;
    return read_quantization(*found, method == "gptq" ? PackedMethod::gptq : PackedMethod::awq, path.string());
  }
  if (!fs::exists(early)) return std::nullopt;
  const ordered_json quantization = read_json_file(early);
  if (!quantization.is_object()) throw FormatError(early.string(), -1, "expected an object");
  const std::string method = word_in(quantization, {"quant_method"}, "gptq", early.string());
  if (method != "gptq") return std::nullopt;
  return read_quantization(quantization, PackedMethod::gptq, early.string());
}

std::unique_ptr<WeightSource> open_packed_weights(const fs::path& directory, const PackedQuantization& quantization) {
  const SafetensorsTensors tensors = safetensors_tensors(directory);
  const LinearReader::Files by_name(tensors.begin(), tensors.end());
  StoredLinears linears;
  std::set<std::string> parts;
  for (const auto& [name, file] : tensors) {
    if (!name.ends_with(code_suffix)) continue;
    const std::string module = name.substr(0, name.size() - code_suffix.size());
    linears[module + ".weight"] =
        std::make_unique<DequantizedLinear>(LinearReader(by_name, module, quantization).read(), quantization);
    for (const char* suffix : {".qweight", ".qzeros", ".scales", ".g_idx"}) parts.insert(module + suffix);
  }
  if (linears.empty())
    throw FormatError((directory / "config.json").string(), -1,
                      "says that the weights are quantised, but there is no .qweight among them");
  return with_linears(tensors, parts, std::move(linears));
}

}  // namespace lathe::nn
