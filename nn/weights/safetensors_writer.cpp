#include "nn/weights/safetensors_writer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;

int64_t bytes_of(const SafetensorsToWrite& weight) { return weight.weight.shape.numel() * size_of(weight.dtype); }

const char* name_in_file(DType dtype) {
  switch (dtype) {
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::f16: return "F16";
    default: throw ShapeError("weights are written as f32, bf16 or f16, not " + std::string(name_of(dtype)));
  }
}

void convert(DType dtype, const float* in, int64_t count, std::byte* out) {
  if (dtype == DType::f32) {
    std::memcpy(out, in, static_cast<size_t>(count) * 4);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = dtype == DType::bf16 ? bf16(in[i]).bits : f16(in[i]).bits;
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

void write_file(const std::filesystem::path& path, std::vector<const SafetensorsToWrite*> weights) {
  std::sort(weights.begin(), weights.end(), [](const auto* a, const auto* b) {
    const auto rank = [](DType dtype) { return dtype == DType::f32 ? 0 : dtype == DType::bf16 ? 1 : 2; };
    return std::make_pair(rank(a->dtype), std::string_view(a->weight.name)) <
           std::make_pair(rank(b->dtype), std::string_view(b->weight.name));
  });
  ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (const SafetensorsToWrite* weight : weights) {
    const auto dims = weight->weight.shape.dims();
    header[weight->weight.name] = {{"dtype", name_in_file(weight->dtype)},
                                   {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                                   {"data_offsets", {offset, offset + bytes_of(*weight)}}};
    offset += bytes_of(*weight);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const SafetensorsToWrite* weight : weights) {
    const int64_t columns = weight->weight.columns();
    stream_rows(
        weight->weight, columns * size_of(weight->dtype),
        [&](const float* rows, int64_t count, std::byte* out) { convert(weight->dtype, rows, count * columns, out); },
        [&](const std::byte* piece, int64_t count) { file.write(std::span(piece, static_cast<size_t>(count))); });
  }
  file.commit();
}

}  // namespace

void write_safetensors_shards(const std::filesystem::path& directory, const std::vector<SafetensorsToWrite>& weights,
                              int64_t max_shard_bytes) {
  std::vector<std::vector<const SafetensorsToWrite*>> shards(1);
  int64_t shard_bytes = 0, all_bytes = 0;
  for (const SafetensorsToWrite& weight : weights) {
    const int64_t bytes = bytes_of(weight);
    if (!shards.back().empty() && shard_bytes + bytes > max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back(&weight);
    shard_bytes += bytes;
    all_bytes += bytes;
  }
  if (shards.size() == 1) return write_file(directory / "model.safetensors", shards[0]);
  ordered_json places = ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    write_file(directory / name, shards[i]);
    for (const SafetensorsToWrite* weight : shards[i]) places[weight->weight.name] = name;
  }
  const ordered_json index = {{"metadata", {{"total_size", all_bytes}}}, {"weight_map", std::move(places)}};
  write_file_atomically(directory / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace lathe::nn
