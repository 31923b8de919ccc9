#include "nn/weights/bitsandbytes.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "kernels/nf4/codebook.h"
#include "kernels/quantization/dynamic_map.h"
#include "nn/families/text_config.h"

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view state_suffix = ".quant_state.bitsandbytes__nf4",
                           fp4_suffix = ".quant_state.bitsandbytes__fp4";
constexpr int64_t most_extent = int64_t{1} << 31;

// torch's word.
std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::bf16: return "bfloat16";
    case DType::f16: return "float16";
    default: return "float32";
  }
}

using FilesByName = std::map<std::string, std::shared_ptr<const SafetensorsFile>, std::less<>>;

// The parts of a quantised weight in its file.
class Parts {
 public:
  Parts(const FilesByName& tensors, std::string name) : tensors_(tensors), name_(std::move(name)) {}

  [[noreturn]] void fail(const std::string& reason) const {
    const auto found = tensors_.find(name_);
    throw FormatError(found != tensors_.end() ? found->second->path().string() : "the model's weights", -1,
                      name_ + ": " + reason);
  }
  Tensor part(const std::string& suffix) const {
    const auto found = tensors_.find(name_ + suffix);
    if (found == tensors_.end()) fail("its " + name_ + suffix + " is missing");
    return found->second->tensor(name_ + suffix);
  }
  Tensor part(const std::string& suffix, DType dtype) const {
    const Tensor tensor = part(suffix);
    if (tensor.dtype() != dtype)
      fail("expected " + std::string(name_of(dtype)) + " in its " + name_ + suffix + ", found " + describe(tensor));
    return tensor;
  }
  // The bytes of the codes, whatever dtype they are kept in (bnb_4bit_quant_storage).
  Tensor codes() const {
    const Tensor stored = part("");
    return Tensor::from_storage(stored.storage(), stored.byte_offset(), {stored.nbytes()}, DType::u8);
  }
  ordered_json state() const {
    const Tensor bytes = part(std::string(state_suffix), DType::u8);
    const std::string_view text(static_cast<const char*>(bytes.raw()), static_cast<size_t>(bytes.nbytes()));
    ordered_json state = parse_json(text, name_ + std::string(state_suffix));
    if (!state.is_object()) fail("its quant_state is no JSON object");
    return state;
  }
  // Another codebook would be another format.
  void expect_values(const std::string& suffix, std::span<const float> expected) const {
    const Tensor found = part(suffix, DType::f32);
    if (found.numel() != static_cast<int64_t>(expected.size()) ||
        std::memcmp(found.raw(), expected.data(), expected.size_bytes()) != 0)
      fail("its " + name_ + suffix + " has other values than bitsandbytes' nf4: they are not supported");
  }

 private:
  const FilesByName& tensors_;
  std::string name_;
};

const ordered_json& field(const Parts& parts, const ordered_json& state, const char* key) {
  const auto found = state.find(key);
  if (found == state.end()) parts.fail("its quant_state has no " + std::string(key));
  return *found;
}

kernels::Nf4Weight read_weight(const Parts& parts) {
  const ordered_json state = parts.state();
  const auto integer = [&](const ordered_json& value, const char* key) {
    return json_integer(value, std::string("quant_state.") + key, 1, most_extent, "the model's weights");
  };
  if (const ordered_json& type = field(parts, state, "quant_type"); type != "nf4")
    parts.fail("expected quant_type nf4, found " + json_excerpt(type));
  const ordered_json& shape = field(parts, state, "shape");
  if (!shape.is_array() || shape.size() != 2) parts.fail("expected a matrix, found the shape " + json_excerpt(shape));
  kernels::Nf4Weight weight{.rows = integer(shape[0], "shape"),
                            .columns = integer(shape[1], "shape"),
                            .block_size = integer(field(parts, state, "blocksize"), "blocksize")};
  weight.codes = parts.codes();
  parts.expect_values(".quant_map", kernels::nf4_codebook.values);
  if (!state.contains("nested_offset")) {
    weight.absmax = parts.part(".absmax", DType::f32);
  } else {
    if (integer(field(parts, state, "nested_blocksize"), "nested_blocksize") != kernels::nf4_nested_block)
      parts.fail("expected scales in blocks of 256 (nested_blocksize), found " +
                 json_excerpt(state["nested_blocksize"]));
    parts.expect_values(".nested_quant_map", kernels::signed_dynamic_map().values);
    weight.absmax_codes = parts.part(".absmax", DType::u8);
    weight.nested_absmax = parts.part(".nested_absmax", DType::f32);
    const float offset =
        static_cast<float>(json_number(state["nested_offset"], "quant_state.nested_offset", "the model's weights"));
    weight.offset = Tensor::of<float>({{offset}}, {1}, MemoryTag::weights);
  }
  try {
    kernels::check_nf4("bitsandbytes", weight);
  } catch (const Error& error) {
    parts.fail(error.what());
  }
  return weight;
}

class BitsandbytesWeights final : public WeightSource {
 public:
  BitsandbytesWeights(std::unique_ptr<WeightSource> plain, std::map<std::string, kernels::Nf4Weight, std::less<>> coded,
                      std::set<std::shared_ptr<const SafetensorsFile>> files)
      : plain_(std::move(plain)), coded_(std::move(coded)), files_(std::move(files)), infos_(plain_->weights()) {
    for (const auto& [name, weight] : coded_)
      infos_.push_back({name, name, "NF4", Shape{weight.rows, weight.columns}, weight.nbytes()});
    for (const WeightInfo& info : infos_) by_name_[info.name] = &info;
  }

  void release_pages() const override {
    for (const auto& file : files_) file->release_pages();
  }
  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }
  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = coded_.find(name);
    if (found == coded_.end()) return plain_->read_rows(name, first, count, out);
    const int64_t columns = found->second.columns;
    const auto storage = Storage::wrap(out, count * columns * 4, {}, nullptr);
    kernels::nf4_dequantize(Tensor::from_storage(storage, 0, {count, columns}, DType::f32), found->second, first);
  }
  std::optional<kernels::StoredWeight> codes(std::string_view name) const override {
    const auto found = coded_.find(name);
    // Rows that end inside a block of 32 are read as what they stand for.
    if (found == coded_.end() || !kernels::QuantizedWeight::suits(found->second.columns, found->second.block_size))
      return std::nullopt;
    return found->second;
  }

 private:
  std::unique_ptr<WeightSource> plain_;
  std::map<std::string, kernels::Nf4Weight, std::less<>> coded_;
  std::set<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<WeightInfo> infos_;
  std::map<std::string, const WeightInfo*, std::less<>> by_name_;
};

// True or false; false where it is not there.
bool flag(const ordered_json& config, const char* key, const std::string& file) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return false;
  if (!found->is_boolean())
    throw FormatError(
        file, -1,
        std::string("quantization_config.") + key + ": expected true or false, found " + json_excerpt(*found));
  return found->get<bool>();
}

}  // namespace

bool is_bitsandbytes_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const std::string file = path.string();
  const ordered_json config = read_json_file(path);
  const ordered_json* const found = quantization_config(config);
  if (found == nullptr) return false;
  const ordered_json& quantization = *found;
  if (!quantization.is_object())
    throw FormatError(file, -1, "quantization_config: expected an object, found " + json_excerpt(quantization));
  // Checkpoints of early versions do not say whose they are.
  const std::string method = quantization.contains("quant_method") && quantization["quant_method"].is_string()
                                 ? quantization["quant_method"].get<std::string>()
                                 : "bitsandbytes";
  const auto refuse = [&](const std::string& what) {
    throw ConfigError("quantization_config",
                      file + " says " + what +
                          ", which is not read here; expected GPTQ, AWQ, fp8, compressed-tensors or "
                          "bitsandbytes' 4 bits (nf4), or the model before it was quantised, with load_in_4bit or "
                          "load_in_8bit");
  };
  if (method != "bitsandbytes") refuse("quant_method " + json_excerpt(method));
  if (flag(quantization, "load_in_8bit", file)) refuse("load_in_8bit (LLM.int8)");
  if (!flag(quantization, "load_in_4bit", file)) return false;
  const auto type = quantization.find("bnb_4bit_quant_type");
  if (type == quantization.end() || *type != "nf4")
    refuse("bnb_4bit_quant_type " +
           (type == quantization.end() ? std::string("fp4, its default") : json_excerpt(*type)));
  return true;
}

std::unique_ptr<WeightSource> open_bitsandbytes_weights(const std::filesystem::path& directory) {
  const SafetensorsTensors tensors = safetensors_tensors(directory);
  std::vector<std::string> names;
  for (const auto& [name, file] : tensors) {
    if (name.ends_with(fp4_suffix)) throw FormatError(file->path().string(), -1, name + ": fp4 is not read, nf4 is");
    if (name.ends_with(state_suffix)) names.push_back(name.substr(0, name.size() - state_suffix.size()));
  }
  std::map<std::string, kernels::Nf4Weight, std::less<>> coded;
  const FilesByName by_name(tensors.begin(), tensors.end());
  std::set<std::string> parts;
  for (const std::string& name : names) {
    coded[name] = read_weight(Parts(by_name, name));
    for (const std::string_view suffix :
         {std::string_view(), std::string_view(".absmax"), std::string_view(".quant_map"),
          std::string_view(".nested_absmax"), std::string_view(".nested_quant_map"), state_suffix})
      parts.insert(name + std::string(suffix));
  }
  SafetensorsTensors plain;
  std::set<std::shared_ptr<const SafetensorsFile>> files;
  for (const auto& tensor : tensors) {
    files.insert(tensor.second);
    if (!parts.contains(tensor.first)) plain.push_back(tensor);
  }
  return std::make_unique<BitsandbytesWeights>(open_safetensors_weights(plain), std::move(coded), std::move(files));
}

NamedTensors bitsandbytes_tensors(const std::string& name, const kernels::Nf4Weight& weight, DType dtype) {
  ordered_json state = {{"quant_type", "nf4"},
                        {"blocksize", weight.block_size},
                        {"dtype", torch_name(dtype)},
                        {"shape", {weight.rows, weight.columns}}};
  const auto values = [](std::span<const float> of) {
    return Tensor::of<float>(of, {static_cast<int64_t>(of.size())}, MemoryTag::workspace);
  };
  NamedTensors tensors = {{name, weight.codes.view({weight.codes.numel(), 1})},
                          {name + ".absmax", weight.nested() ? weight.absmax_codes : weight.absmax},
                          {name + ".quant_map", values(kernels::nf4_codebook.values)}};
  if (weight.nested()) {
    tensors.emplace_back(name + ".nested_absmax", weight.nested_absmax);
    tensors.emplace_back(name + ".nested_quant_map", values(kernels::signed_dynamic_map().values));
    state["nested_blocksize"] = kernels::nf4_nested_block;
    state["nested_dtype"] = "float32";
    state["nested_offset"] = static_cast<double>(weight.offset.data<float>()[0]);  // which a double holds exactly
  }
  const std::string text = state.dump();
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  tensors.emplace_back(name + std::string(state_suffix),
                       Tensor::of<uint8_t>(bytes, {static_cast<int64_t>(bytes.size())}, MemoryTag::workspace));
  return tensors;
}

}  // namespace lathe::nn
