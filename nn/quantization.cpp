#include "nn/quantization.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "nn/layer_layout.h"
#include "nn/model_files.h"

namespace lathe::nn {
namespace {

std::string flag_of(const Quantization& quantization) {
  return quantization.format == kernels::QuantizedFormat::nf4 ? "load_in_4bit" : "load_in_8bit";
}

template <class Visitor>
void for_each_linear(const ModelFiles& files, const Visitor& visitor) {
  if (!files.weights) return;
  for (int64_t layer = 0; layer < files.config.num_hidden_layers(); ++layer)
    for (const LinearShape& linear : layer_layout(files.config, layer).linears_and_experts())
      if (const WeightInfo* info = files.weights->find(layer_prefix(layer) + linear.name + ".weight")) visitor(*info);
}

// How the files' own codes are stored, if they have any.
std::optional<Quantization> stored_quantization(const ModelFiles& files) {
  std::optional<Quantization> stored;
  for_each_linear(files, [&](const WeightInfo& info) {
    if (stored) return;
    const auto codes = files.weights->codes(info.name);
    if (!codes) return;
    stored.emplace();
    stored->format = static_cast<kernels::QuantizedFormat>(codes->index());
    if (const auto* nf4 = std::get_if<kernels::Nf4Weight>(&*codes); nf4 != nullptr && nf4->nested())
      stored->scales = kernels::Nf4Scales::nested;
  });
  return stored;
}

// "Q4_1, Q5_0": the block types among the linears.
std::string block_types(const ModelFiles& files) {
  static const std::set<std::string> plain_types = {"F32", "F16", "BF16", "F64"};
  std::set<std::string> types;
  for_each_linear(files, [&](const WeightInfo& info) {
    if (!plain_types.contains(info.stored_type)) types.insert(info.stored_type);
  });
  std::string list;
  for (const std::string& type : types) list += (list.empty() ? "" : ", ") + type;
  return list;
}

}  // namespace

std::string name_of(const Quantization& quantization) {
  if (quantization.format == kernels::QuantizedFormat::int8) return "int8";
  return quantization.scales == kernels::Nf4Scales::nested ? "nf4 with double quantisation" : "nf4";
}

std::optional<Quantization> quantization_of(bool load_in_4bit, bool load_in_8bit, bool bnb_4bit_use_double_quant) {
  if (load_in_4bit && load_in_8bit)
    throw ConfigError("load_in_8bit", "give load_in_4bit or load_in_8bit, not both: a weight is held in one of them");
  if (bnb_4bit_use_double_quant && !load_in_4bit)
    throw ConfigError("bnb_4bit_use_double_quant", "has no use without load_in_4bit, whose scales it is about");
  if (!load_in_4bit && !load_in_8bit) return std::nullopt;
  return Quantization{load_in_4bit ? kernels::QuantizedFormat::nf4 : kernels::QuantizedFormat::int8,
                      bnb_4bit_use_double_quant ? kernels::Nf4Scales::nested : kernels::Nf4Scales::plain};
}

std::optional<Quantization> resolved_quantization(const ModelFiles& files, const std::optional<Quantization>& wanted) {
  const std::optional<Quantization> stored = stored_quantization(files);
  if (!stored) return wanted;
  if (wanted && wanted->format != stored->format)
    throw ConfigError(flag_of(*wanted),
                      files.path.string() +
                          " holds its linears in 4 bits (quantization_config in config.json); leave " +
                          flag_of(*wanted) + " out, or give the model that was quantised");
  return stored;
}

std::vector<std::string> quantization_warnings(const ModelFiles& files, const std::optional<Quantization>& wanted) {
  if (!wanted) return {};
  const std::string name = files.path.filename().string(), flag = flag_of(*wanted);
  const std::optional<Quantization> stored = stored_quantization(files);
  if (stored && stored->scales != wanted->scales)
    return {name + " holds its linears as nf4 codes already: they are used as they are, bnb_4bit_use_double_quant " +
            "included"};
  const std::string types = stored ? "" : block_types(files);
  if (types.empty()) return {};
  return {name + " holds its linears in " + types + ": " + flag +
          " quantises what these codes stand for a second time. The adapter is trained beside, and belongs to, the "
          "weights that come of both; a file in F16 or BF16 loses less"};
}

int64_t linear_bytes(const LinearShape& linear, DType dtype, const std::optional<Quantization>& quantization,
                     Device device) {
  const int64_t elements = linear.out * linear.in;
  if (!quantization || !kernels::QuantizedWeight::suits(linear.in, nf4_block)) return elements * size_of(dtype);
  const bool nf4 = quantization->format == kernels::QuantizedFormat::nf4;
  const int64_t codes = nf4 ? elements / 2 : elements;
  // In panels each row has a scale for every 64, or 32, neighbours; on a device the scales lie as they are stored.
  if (device.kind == DeviceKind::cpu) return codes + elements / (linear.in % 64 == 0 ? 64 : 32) * 4;
  const int64_t blocks = elements / nf4_block;
  if (nf4 && quantization->scales == kernels::Nf4Scales::nested) return codes + blocks + blocks / 256 * 4;
  return codes + blocks * 4;
}

}  // namespace lathe::nn
