#include "nn/convert/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "core/error.h"
#include "nn/convert/gguf_metadata.h"
#include "nn/families/family.h"
#include "nn/layer_layout.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/key_head_rows.h"

namespace lathe::nn {
namespace {

// The router of experts stays F32, as llama.cpp keeps it, and so do convolutions, all biases, and what decides how much
// a gated delta net forgets.
bool stays_f32(const Shape& shape, const std::string& gguf_name) {
  if (shape.rank() < 2) return true;
  for (const char* kept : {"ffn_gate_inp.weight", "shortconv.conv.weight", "ssm_conv1d.weight", "ssm_alpha.weight",
                           "ssm_beta.weight", "ssm_ba.weight", "ssm_a", "ssm_d", "ssm_norm.weight", ".bias"})
    if (gguf_name.ends_with(kept)) return true;
  return false;
}
const GgmlWriter& type_of(const Shape& shape, const std::string& gguf_name, const GgmlWriter& asked) {
  if (stays_f32(shape, gguf_name)) return *ggml_writer("F32");
  const GgmlType& blocks = *ggml_type(asked.id);
  if (shape[-1] % blocks.block_elements != 0) return *ggml_writer("F16");
  const bool four_bits = asked.name.starts_with("Q4");
  return four_bits && (gguf_name == "token_embd.weight" || gguf_name == "output.weight") ? *ggml_writer("Q8_0") : asked;
}

// Row h·D + 2 i + half of the file is row h·D + half·D/2 + i of Hugging Face's.
int64_t hf_row(int64_t row, int64_t rows, int64_t heads) {
  const int64_t head_dim = rows / heads, within = row % head_dim;
  return row - within + within % 2 * (head_dim / 2) + within / 2;
}

// The rows and columns of a gated delta net's value heads in GGUF's order.
WeightRows tiled_rows_of(const ModelFiles& files, const WeightInfo& info, const std::string& gguf_name,
                         const GgufPlace& place) {
  const WeightSource* source = files.weights.get();
  const bool is_vector = info.shape.rank() == 1;
  return {gguf_name, info.shape,
          [=, name = info.name, columns = info.shape[-1]](int64_t first, int64_t count, float* out) {
            std::vector<float> row(static_cast<size_t>(columns));
            for (int64_t i = 0; i < count; ++i) {
              source->read_rows(name, is_vector ? 0 : place.row_tiling.plain(first + i), 1, row.data());
              const HeadTiling& within = is_vector ? place.row_tiling : place.column_tiling;
              for (int64_t j = 0; j < columns; ++j) {
                const float value = row[static_cast<size_t>(within.plain(j))];
                out[i * columns + j] = place.negative_exponential ? -std::exp(value) : value;
              }
            }
          }};
}

WeightRows rows_of(const ModelFiles& files, const WeightInfo& info, const std::string& gguf_name, int64_t heads) {
  const WeightSource* source = files.weights.get();
  const std::string name = info.name;
  const int64_t head_rows = info.shape[0];
  if (heads > 0 && info.shape.rank() == 1)
    return {gguf_name, info.shape, [=](int64_t, int64_t count, float* out) {
              std::vector<float> whole(static_cast<size_t>(head_rows));
              source->read_rows(name, 0, 1, whole.data());
              for (int64_t i = 0; i < head_rows * count; ++i)
                out[i] = whole[static_cast<size_t>(hf_row(i, head_rows, heads))];
            }};
  if (heads > 0)
    return {gguf_name, info.shape, [=, columns = info.shape[-1]](int64_t first, int64_t count, float* out) {
              for (int64_t i = 0; i < count; ++i)
                source->read_rows(name, hf_row(first + i, head_rows, heads), 1, out + i * columns);
            }};
  const bool shifted = info.shape.rank() == 1 && has_norm_offset(name) && files.config.norm_weight_offset != 0;
  const auto offset = static_cast<float>(shifted ? files.config.norm_weight_offset : 0);
  return {gguf_name, info.shape, [=, columns = info.shape[-1]](int64_t first, int64_t count, float* out) {
            source->read_rows(name, first, count, out);
            if (!shifted) return;
            for (int64_t i = 0; i < count * columns; ++i) out[i] += offset;
          }};
}

// A layer's experts as one tensor, one after the other.
WeightRows experts_of(const ModelFiles& files, const std::string& gguf_name, const std::vector<std::string>& parts) {
  const WeightSource* source = files.weights.get();
  const WeightInfo* first = source->find(parts.at(0));
  if (first == nullptr) throw FormatError(files.path.string(), -1, "the weight " + parts[0] + " is missing");
  const Shape shape = first->shape;
  for (const std::string& name : parts) {
    const WeightInfo* info = source->find(name);
    if (info == nullptr || info->shape != shape)
      throw FormatError(files.path.string(), -1,
                        name + (info == nullptr ? " is missing"
                                                : ": expected shape " + to_string(shape) + " as of " + parts[0] +
                                                      ", found " + to_string(info->shape)));
  }
  const auto count = static_cast<int64_t>(parts.size());
  const bool bias = shape.rank() == 1;
  return {gguf_name, bias ? Shape{count, shape[0]} : Shape{count, shape[0], shape[1]},
          [=, rows = bias ? 1 : shape[0], columns = shape[-1]](int64_t row, int64_t wanted, float* out) {
            for (int64_t done = 0; done < wanted;) {
              const int64_t expert = (row + done) / rows, within = (row + done) % rows;
              const int64_t some = std::min(wanted - done, rows - within);
              source->read_rows(parts[static_cast<size_t>(expert)], within, some, out + done * columns);
              done += some;
            }
          }};
}

// A vector that is a matrix in the file.
WeightRows vector_of(const ModelFiles& files, const WeightInfo& info, const std::string& gguf_name,
                     const GgufPlace& place) {
  const WeightRows vector = tiled_rows_of(files, info, gguf_name, place);
  const int64_t numbers = info.shape.numel(), columns = place.vector_as[-1];
  return {gguf_name, place.vector_as, [=, read = vector.read](int64_t first, int64_t count, float* out) {
            std::vector<float> whole(static_cast<size_t>(numbers));
            read(0, 1, whole.data());
            std::copy_n(whole.begin() + first * columns, count * columns, out);
          }};
}

WeightRows half_of(const ModelFiles& files, const WeightInfo& info, const std::string& gguf_name,
                   GgufPlace::Half half) {
  const WeightSource* source = files.weights.get();
  const int64_t rows = info.shape[0] / 2, before = half == GgufPlace::Half::second ? rows : 0;
  return {gguf_name, Shape{rows, info.shape[1]}, [=, name = info.name](int64_t first, int64_t count, float* out) {
            source->read_rows(name, before + first, count, out);
          }};
}

void add_tensors(const ModelFiles& files, const GgmlWriter& type, GgufModel& model) {
  std::set<std::string> placed;
  for (const auto& [gguf_name, place] : gguf_places(files.config)) {
    if (!place.parts.empty()) {
      placed.insert(place.parts.begin(), place.parts.end());
      WeightRows experts = experts_of(files, gguf_name, place.parts);
      const GgmlWriter& writer = type_of(experts.shape, gguf_name, type);
      model.tensors.push_back({std::move(experts), &writer});
      continue;
    }
    if (place.older) continue;
    const WeightInfo* info = files.weights->find(place.name);
    placed.insert(place.name);
    const bool head = place.name == "lm_head.weight";
    if (head && files.config.tie_word_embeddings) continue;
    if (info == nullptr) throw FormatError(files.path.string(), -1, "the weight " + place.name + " is missing");
    if (place.half != GgufPlace::Half::none) {
      WeightRows half = half_of(files, *info, gguf_name, place.half);
      const GgmlWriter& writer = type_of(half.shape, gguf_name, type);
      model.tensors.push_back({std::move(half), &writer});
      continue;
    }
    WeightInfo stored = *info;
    if (place.without_middle) stored.shape = Shape{info->shape[0], info->shape[-1]};
    if (place.without_first) stored.shape = Shape{info->shape[-1]};
    if (place.vector_as.rank() > 0) {
      model.tensors.push_back({vector_of(files, stored, gguf_name, place), ggml_writer("F32")});
      continue;
    }
    const bool tiled = place.row_tiling.changes() || place.column_tiling.changes() || place.negative_exponential;
    model.tensors.push_back({tiled ? tiled_rows_of(files, stored, gguf_name, place)
                                   : rows_of(files, stored, gguf_name, place.interleaved_heads),
                             &type_of(stored.shape, gguf_name, type)});
  }
  for (const WeightInfo& info : files.weights->weights())
    if (!placed.contains(info.name))
      throw FormatError(files.path.string(), -1,
                        info.name + " has no place in GGUF's " + files.config.family + ", which would leave it out");
}

// A file in another type: its metadata but for what says the type, its tensors under their names and in their order.
void requantize(const ModelFiles& files, const GgmlWriter& type, GgufModel& model) {
  for (const auto& [key, value] : files.gguf->metadata()) {
    if (key.starts_with("split.") || key == "general.file_type" || key == "general.quantization_version" ||
        key == "general.alignment")
      continue;
    model.metadata.emplace_back(key, value);
  }
  model.metadata.emplace_back("general.file_type", int64_t{type.file_type});
  model.metadata.emplace_back("general.quantization_version", int64_t{2});
  const std::shared_ptr<const WeightSource> stored = open_gguf_weights(files.gguf, {});
  for (const WeightInfo& info : stored->weights())
    model.tensors.push_back({{info.name, info.shape,
                              [stored, name = info.name](int64_t first, int64_t count, float* out) {
                                stored->read_rows(name, first, count, out);
                              }},
                             &type_of(info.shape, info.name, type)});
}

}  // namespace

GgufModel gguf_model_of(const ModelFiles& files, const GgmlWriter& type) {
  GgufModel model;
  if (files.gguf) {
    requantize(files, type, model);
    return model;
  }
  add_gguf_metadata(files.config, type, model);
  ModelFiles apart = files;
  apart.weights = model.source = split_key_heads(files.weights, files.config);
  add_tensors(apart, type, model);
  return model;
}

}  // namespace lathe::nn
