#include "nn/weights/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <unordered_map>

#include "core/error.h"
#include "nn/weights/ggml_types.h"
#include "nn/weights/gguf_value_type.h"
#include "nn/weights/misplaced_file.h"

namespace lathe::nn {

struct GgufFile::Contents {
  std::vector<std::shared_ptr<const MappedFile>> parts;  // one, or those of a split model
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string_view, size_t> by_name;  // into tensors, whose strings it borrows
};

namespace {

using namespace gguf;

// Reads forward through the mapped bytes; whatever would run past their end is a FormatError at that byte.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}

  int64_t offset() const { return offset_; }
  int64_t left() const { return static_cast<int64_t>(bytes_.size()) - offset_; }
  [[noreturn]] void fail(const std::string& reason) const { throw FormatError(path_, offset_, reason); }

  template <class T>
  T read(const char* what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  std::string read_string(const char* what) {
    const uint64_t length = read<uint64_t>(what);
    if (length > static_cast<uint64_t>(left()))
      fail(std::string(what) + ": a string of " + std::to_string(length) + " bytes, but only " +
           std::to_string(left()) + " are left in the file");
    std::string text(reinterpret_cast<const char*>(bytes_.data() + offset_), length);
    offset_ += static_cast<int64_t>(length);
    return text;
  }

  // A count of items that take at least `item_bytes` each.
  int64_t read_count(const char* what, int64_t item_bytes) {
    const uint64_t count = read<uint64_t>(what);
    if (count > static_cast<uint64_t>(left() / item_bytes))
      fail(std::string(what) + ": " + std::to_string(count) + " items cannot fit into the " + std::to_string(left()) +
           " bytes left in the file");
    return static_cast<int64_t>(count);
  }

 private:
  void need(int64_t count, const char* what) const {
    if (left() < count) fail(std::string("the file ends inside ") + what);
  }
  std::span<const std::byte> bytes_;
  std::string path_;
  int64_t offset_ = 0;
};

int64_t value_bytes(uint32_t type) {
  // clang-format off
  switch (type) {
    case u8: case i8: case boolean: return 1;
    case u16: case i16: return 2;
    case u32: case i32: case f32: return 4;
    case u64: case i64: case f64: return 8;
    case string: return 8;  // at least its length
    default: return 0;
  }
  // clang-format on
}

int64_t read_integer(Cursor& cursor, uint32_t type) {
  switch (type) {
    case u8: return cursor.read<uint8_t>("a value");
    case i8: return cursor.read<int8_t>("a value");
    case u16: return cursor.read<uint16_t>("a value");
    case i16: return cursor.read<int16_t>("a value");
    case u32: return cursor.read<uint32_t>("a value");
    case i32: return cursor.read<int32_t>("a value");
    case i64: return cursor.read<int64_t>("a value");
    default: {
      const uint64_t value = cursor.read<uint64_t>("a value");
      if (value > static_cast<uint64_t>(INT64_MAX)) cursor.fail("an integer above 2^63");
      return static_cast<int64_t>(value);
    }
  }
}

bool read_bool(Cursor& cursor) {
  const uint8_t value = cursor.read<uint8_t>("a bool");
  if (value > 1) cursor.fail("a bool that is neither 0 nor 1");
  return value == 1;
}

double read_real(Cursor& cursor, uint32_t type) {
  return type == f32 ? static_cast<double>(cursor.read<float>("a value")) : cursor.read<double>("a value");
}

template <class T, class F>
std::vector<T> read_items(int64_t count, F read) {
  std::vector<T> items;
  items.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) items.push_back(read());
  return items;
}

GgufValue read_array(Cursor& cursor) {
  const uint32_t type = cursor.read<uint32_t>("an array's type");
  if (type == array) cursor.fail("an array of arrays, which no known key has");
  if (value_bytes(type) == 0) cursor.fail("unknown value type " + std::to_string(type));
  const int64_t count = cursor.read_count("an array's length", value_bytes(type));
  if (type == string) return read_items<std::string>(count, [&] { return cursor.read_string("an array item"); });
  if (type == boolean) return read_items<bool>(count, [&] { return read_bool(cursor); });
  if (type == f32 || type == f64) return read_items<double>(count, [&] { return read_real(cursor, type); });
  return read_items<int64_t>(count, [&] { return read_integer(cursor, type); });
}

GgufValue read_value(Cursor& cursor) {
  const uint32_t type = cursor.read<uint32_t>("a value's type");
  if (type == array) return read_array(cursor);
  if (value_bytes(type) == 0) cursor.fail("unknown value type " + std::to_string(type));
  if (type == string) return cursor.read_string("a string value");
  if (type == boolean) return read_bool(cursor);
  if (type == f32 || type == f64) return read_real(cursor, type);
  return read_integer(cursor, type);
}

// Reads one tensor's entry; its offset is still relative to the data section.
GgufTensor read_tensor_info(Cursor& cursor) {
  GgufTensor tensor;
  tensor.name = cursor.read_string("a tensor's name");
  const uint32_t rank = cursor.read<uint32_t>("a tensor's number of dimensions");
  if (rank < 1 || rank > 4) cursor.fail(tensor.name + ": " + std::to_string(rank) + " dimensions, expected 1 to 4");
  std::vector<int64_t> dims(rank);
  int64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    const uint64_t extent = cursor.read<uint64_t>("a tensor's extent");
    if (extent == 0 || extent > (uint64_t{1} << 40) ||
        __builtin_mul_overflow(elements, static_cast<int64_t>(extent), &elements) || elements > (int64_t{1} << 46))
      cursor.fail(tensor.name + ": an absurd extent of " + std::to_string(extent));
    dims[rank - 1 - i] = static_cast<int64_t>(extent);
  }
  tensor.shape = Shape(dims);
  tensor.type = cursor.read<uint32_t>("a tensor's type");
  const GgmlType* type = ggml_type(tensor.type);
  if (type == nullptr) cursor.fail(tensor.name + ": unknown tensor type " + std::to_string(tensor.type));
  if (dims.back() % type->block_elements != 0)
    cursor.fail(tensor.name + ": rows of " + std::to_string(dims.back()) + " are no multiple of " +
                std::string(type->name) + "'s block of " + std::to_string(type->block_elements));
  tensor.nbytes = elements / type->block_elements * type->block_bytes;
  const uint64_t offset = cursor.read<uint64_t>("a tensor's offset");
  if (offset > static_cast<uint64_t>(INT64_MAX)) cursor.fail(tensor.name + ": an offset above 2^63");
  tensor.offset = static_cast<int64_t>(offset);
  return tensor;
}

int64_t alignment_of(const std::map<std::string, GgufValue, std::less<>>& metadata, const std::string& path) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return 32;
  const int64_t* value = std::get_if<int64_t>(&found->second);
  if (value == nullptr || *value < 8 || *value > (1 << 20) || (*value & (*value - 1)) != 0)
    throw FormatError(path, -1, "general.alignment: expected a power of two from 8 to 2^20");
  return *value;
}

// Makes offsets absolute and checks that each tensor lies aligned within the file and none overlaps another.
void place_tensors(std::vector<GgufTensor>& tensors, int64_t data_begin, int64_t alignment, int64_t file_bytes,
                   const std::string& path) {
  std::vector<const GgufTensor*> by_offset;
  for (GgufTensor& tensor : tensors) {
    if (tensor.offset % alignment != 0)
      throw FormatError(path, -1,
                        tensor.name + ": offset " + std::to_string(tensor.offset) + " is not aligned to " +
                            std::to_string(alignment));
    if (tensor.offset > file_bytes - data_begin || tensor.nbytes > file_bytes - data_begin - tensor.offset)
      throw FormatError(path, -1,
                        tensor.name + ": its data (" + std::to_string(tensor.nbytes) + " bytes at " +
                            std::to_string(data_begin) + " + " + std::to_string(tensor.offset) +
                            ") runs past the file's end at " + std::to_string(file_bytes) +
                            "; the file may be truncated: fetch it again");
    tensor.offset += data_begin;
    by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i)
    if (by_offset[i - 1]->offset + by_offset[i - 1]->nbytes > by_offset[i]->offset)
      throw FormatError(path, by_offset[i]->offset, by_offset[i]->name + " overlaps " + by_offset[i - 1]->name);
}

void check_magic(Cursor& cursor, std::span<const std::byte> bytes) {
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::string instead = text.size() > 8 && text[8] == '{'
                                    ? "this may be a safetensors file: give the directory that holds it as MODEL"
                                    : what_it_is_instead(text.substr(0, 4096));
    cursor.fail("is no GGUF file (it does not begin with \"GGUF\")" + (instead.empty() ? "" : "; " + instead));
  }
  cursor.read<uint32_t>("the magic");
}

// A file's place in a model that was split into `count` files (1: it was not). As llama-gguf-split writes it.
struct SplitPlace {
  int64_t number = 0, count = 1;
};

SplitPlace split_place(const GgufFile& file) {
  SplitPlace split;
  // A file that was joined again says 0.
  if (file.contains("split.count")) split.count = file.get_integer("split.count", 0, 65535);
  if (split.count > 1) split.number = file.get_integer("split.no", 0, split.count - 1);
  return split;
}

// "-00002-of-00003.gguf"
std::string part_ending(int64_t number, int64_t count) {
  const auto five_digits = [](int64_t value) {
    const std::string digits = std::to_string(value);
    return std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
  };
  return "-" + five_digits(number + 1) + "-of-" + five_digits(count) + ".gguf";
}

[[noreturn]] void fail_split(const std::filesystem::path& path, SplitPlace split, const std::string& reason) {
  throw FormatError(path.string(), -1,
                    "is part " + std::to_string(split.number + 1) + " of " + std::to_string(split.count) +
                        " of one model, " + reason +
                        "; the parts must lie in one folder, or join them with 'llama-gguf-split --merge FIRST_PART "
                        "WHOLE'");
}

// The paths of all parts by one part's path and place. Those that are missing are named together: who fetches files
// again wants to do it once.
std::vector<std::filesystem::path> paths_of_parts(const std::filesystem::path& path, SplitPlace split) {
  const std::string name = path.filename().string(), ending = part_ending(split.number, split.count);
  if (!name.ends_with(ending))
    fail_split(path, split, "but its name does not end in " + ending + ", as the other parts' names would follow");
  const std::string model = name.substr(0, name.size() - ending.size());
  std::vector<std::filesystem::path> paths;
  std::string missing;
  size_t count = 0;
  for (int64_t number = 0; number < split.count; ++number) {
    const std::string part = model + part_ending(number, split.count);
    paths.push_back(path.parent_path() / part);
    std::error_code unreadable;
    if (!std::filesystem::exists(paths.back(), unreadable) && ++count <= 20) missing += (count == 1 ? "" : ", ") + part;
  }
  if (count > 0)
    fail_split(path, split,
               "and " + missing + (count > 20 ? ", …" : "") + (count == 1 ? " is" : " are") + " not there");
  return paths;
}

}  // namespace

std::shared_ptr<GgufFile::Contents> GgufFile::read_part(const std::filesystem::path& path) {
  auto contents = std::make_shared<Contents>();
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  contents->parts = {file};
  Cursor cursor(file->bytes(), path.string());
  check_magic(cursor, file->bytes());
  const uint32_t version = cursor.read<uint32_t>("the version");
  if (version != 2 && version != 3) cursor.fail("GGUF version " + std::to_string(version) + ", expected 2 or 3");
  // The smallest tensor entry is 8 + 4 + 8 + 4 + 8 bytes, the smallest pair 8 + 4 + 1.
  const int64_t tensor_count = cursor.read_count("the number of tensors", 32);
  const int64_t pair_count = cursor.read_count("the number of metadata pairs", 13);
  for (int64_t i = 0; i < pair_count; ++i) {
    std::string key = cursor.read_string("a metadata key");
    GgufValue value = read_value(cursor);
    if (!contents->metadata.emplace(key, std::move(value)).second) cursor.fail("metadata key " + key + " stands twice");
  }
  for (int64_t i = 0; i < tensor_count; ++i) contents->tensors.push_back(read_tensor_info(cursor));
  const int64_t alignment = alignment_of(contents->metadata, path.string());
  const int64_t data_begin = (cursor.offset() + alignment - 1) / alignment * alignment;
  place_tensors(contents->tensors, data_begin, alignment, static_cast<int64_t>(file->bytes().size()), path.string());
  return contents;
}

std::shared_ptr<const GgufFile> GgufFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<GgufFile>();
  std::shared_ptr<Contents> contents = read_part(path);
  file->contents_ = contents;
  const SplitPlace split = split_place(*file);
  if (split.count > 1) {
    contents = std::make_shared<Contents>();
    const std::vector<std::filesystem::path> paths = paths_of_parts(path, split);
    for (int64_t number = 0; number < split.count; ++number) {
      const std::shared_ptr<Contents> part = read_part(paths[static_cast<size_t>(number)]);
      // The first part has the metadata of all.
      if (number == 0) contents->metadata = std::move(part->metadata);
      for (GgufTensor& tensor : part->tensors) {
        tensor.part = static_cast<size_t>(number);
        contents->tensors.push_back(std::move(tensor));
      }
      contents->parts.push_back(part->parts[0]);
    }
    file->contents_ = contents;
  }
  for (size_t i = 0; i < contents->tensors.size(); ++i)
    if (!contents->by_name.emplace(contents->tensors[i].name, i).second)
      throw FormatError(path.string(), -1, "tensor " + contents->tensors[i].name + " stands twice");
  return file;
}

const std::filesystem::path& GgufFile::path() const { return contents_->parts[0]->path(); }
const std::filesystem::path& GgufFile::path_of(const GgufTensor& tensor) const {
  return contents_->parts[tensor.part]->path();
}
const std::map<std::string, GgufValue, std::less<>>& GgufFile::metadata() const { return contents_->metadata; }
const std::vector<GgufTensor>& GgufFile::tensors() const { return contents_->tensors; }

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = contents_->by_name.find(name);
  return found == contents_->by_name.end() ? nullptr : &contents_->tensors[found->second];
}

const std::byte* GgufFile::tensor_bytes(const GgufTensor& tensor) const {
  return contents_->parts[tensor.part]->bytes().data() + tensor.offset;
}

void GgufFile::release_pages() const {
  for (const auto& part : contents_->parts) part->release_pages();
}

template <class T>
const T& GgufFile::get(std::string_view key) const {
  const auto found = contents_->metadata.find(key);
  if (found == contents_->metadata.end())
    throw FormatError(path().string(), -1, "has no metadata key " + std::string(key));
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr)
    throw FormatError(path().string(), -1, "metadata key " + std::string(key) + " is of another type than expected");
  return *value;
}

template <class T>
std::optional<T> GgufFile::get_optional(std::string_view key) const {
  if (contents_->metadata.find(key) == contents_->metadata.end()) return std::nullopt;
  return get<T>(key);
}

bool GgufFile::contains(std::string_view key) const { return contents_->metadata.contains(key); }

int64_t GgufFile::get_integer(std::string_view key, int64_t least, int64_t greatest) const {
  const int64_t value = get<int64_t>(key);
  if (value < least || value > greatest)
    throw FormatError(path().string(), -1,
                      std::string(key) + ": expected an integer from " + std::to_string(least) + " to " +
                          std::to_string(greatest) + ", found " + std::to_string(value));
  return value;
}

double GgufFile::get_number(std::string_view key) const {
  const double value = get<double>(key);
  if (!std::isfinite(value))
    throw FormatError(
        path().string(), -1,
        std::string(key) + ": expected a finite number, found " + (std::isnan(value) ? "NaN" : "infinity"));
  return value;
}

#define LATHE_GGUF_TYPE(...)                                         \
  template const __VA_ARGS__& GgufFile::get(std::string_view) const; \
  template std::optional<__VA_ARGS__> GgufFile::get_optional(std::string_view) const;
LATHE_GGUF_TYPE(int64_t)
LATHE_GGUF_TYPE(double)
LATHE_GGUF_TYPE(bool)
LATHE_GGUF_TYPE(std::string)
LATHE_GGUF_TYPE(std::vector<int64_t>)
LATHE_GGUF_TYPE(std::vector<double>)
LATHE_GGUF_TYPE(std::vector<bool>)
LATHE_GGUF_TYPE(std::vector<std::string>)
#undef LATHE_GGUF_TYPE

}  // namespace lathe::nn
