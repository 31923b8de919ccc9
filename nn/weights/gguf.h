// GGUF version 2 and 3, read only: the metadata and the tensors of a memory-mapped file. Everything is checked when the
// file is opened: a truncated, lying or hostile file is a FormatError with the byte offset, never a crash. A model that
// was split into several files (NAME-00001-of-00003.gguf) is opened whole by the path of any of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/mapped_file.h"
#include "nn/weights/head_tiling.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

// Metadata values; all integers are widened to int64 (a u64 above its range is a FormatError).
using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<bool>, std::vector<std::string>>;

struct GgufTensor {
  std::string name;
  uint32_t type = 0;   // ggml's type id
  Shape shape;         // row-major, so the reverse of the file's ne[]
  size_t part = 0;     // which file of a split model
  int64_t offset = 0;  // of the data, from the start of that file
  int64_t nbytes = 0;
};

class GgufFile {
 public:
  static std::shared_ptr<const GgufFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const;
  const std::filesystem::path& path_of(const GgufTensor& tensor) const;
  const std::map<std::string, GgufValue, std::less<>>& metadata() const;
  const std::vector<GgufTensor>& tensors() const;
  const GgufTensor* find_tensor(std::string_view name) const;
  const std::byte* tensor_bytes(const GgufTensor& tensor) const;
  void release_pages() const;  // core/mapped_file.h

  // Typed metadata. get() throws FormatError naming the key when it is missing or of another type.
  template <class T>
  const T& get(std::string_view key) const;
  template <class T>
  std::optional<T> get_optional(std::string_view key) const;
  bool contains(std::string_view key) const;
  // Numbers within bounds: whole and from `least` to `greatest`, or finite. FormatError names the key and what it has.
  int64_t get_integer(std::string_view key, int64_t least, int64_t greatest) const;
  double get_number(std::string_view key) const;

 private:
  struct Contents;
  static std::shared_ptr<Contents> read_part(const std::filesystem::path& path);
  std::shared_ptr<const Contents> contents_;
};

// What a tensor of the file stands for.
struct GgufPlace {
  std::string name;               // Hugging Face's
  int64_t interleaved_heads = 0;  // > 0: its rows are those of so many heads, the two halves of each interleaved
  // Where it is several matrices or vectors of one shape (a layer's experts), their names in its order, in place of
  // `name`.
  std::vector<std::string> parts = {};
  bool without_middle = false;  // [rows, columns] of the file is [rows, 1, columns] of Hugging Face's
  bool without_first = false;   // and [columns] is [1, columns]
  HeadTiling row_tiling = {}, column_tiling = {};
  bool negative_exponential = false;  // the file has −exp of what Hugging Face has
  bool older = false;                 // found in files of older converters: read, never written
  Shape vector_as = {};               // a vector of Hugging Face's has this shape in the file
  // Where two tensors of the file are the rows of one of Hugging Face's: which half this is, the first or the second.
  enum class Half { none, first, second } half = Half::none;
};
using GgufPlaces = std::map<std::string, GgufPlace, std::less<>>;  // by the file's name

// The weights under Hugging Face's names and in its row order. A tensor that has no place keeps its own name.
std::unique_ptr<WeightSource> open_gguf_weights(std::shared_ptr<const GgufFile> file, const GgufPlaces& places);

}  // namespace lathe::nn
