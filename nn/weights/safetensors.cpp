#include "nn/weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "nn/weights/misplaced_file.h"

namespace lathe::nn {
namespace {

constexpr uint64_t longest_header = 100'000'000;  // the format's own limit

struct TypeName {
  std::string_view name;
  DType dtype;
};
// In the order in which the usual writer sorts: by size and kind, the widest first.
constexpr TypeName type_names[] = {
    {"I64", DType::i64}, {"F64", DType::f64},   {"F32", DType::f32},      {"U32", DType::u32},
    {"I32", DType::i32}, {"BF16", DType::bf16}, {"F16", DType::f16},      {"U16", DType::u16},
    {"I8", DType::i8},   {"U8", DType::u8},     {"BOOL", DType::boolean},
};

std::optional<DType> dtype_named(std::string_view name) {
  for (const TypeName& type : type_names)
    if (type.name == name) return type.dtype;
  return std::nullopt;
}

std::string_view safetensors_name(DType dtype) {
  for (const TypeName& type : type_names)
    if (type.dtype == dtype) return type.name;
  return "?";
}

size_t write_rank(DType dtype) {
  for (size_t i = 0; i < std::size(type_names); ++i)
    if (type_names[i].dtype == dtype) return i;
  return std::size(type_names);
}

// Bits of an element, for the size check of types that Lathe cannot compute with; 0 for an unknown name.
int64_t bits_of_type(std::string_view name) {
  if (const auto dtype = dtype_named(name)) return 8 * size_of(*dtype);
  if (name.starts_with("F8_")) return 8;
  if (name == "C64") return 64;
  if (name == "I16") return 16;
  if (name == "U64") return 64;
  return 0;
}

}  // namespace

struct SafetensorsEntry {
  std::string type;
  Shape shape;
  int64_t begin = 0, end = 0;  // within the file
};

struct SafetensorsFile::Contents {
  std::shared_ptr<const MappedFile> file;
  std::shared_ptr<Storage> storage;
  std::vector<std::string> names;
  std::map<std::string, SafetensorsEntry, std::less<>> entries;
  std::map<std::string, std::string, std::less<>> metadata;
};

namespace {

Shape read_shape(const std::string& path, const std::string& name, const nlohmann::ordered_json& value) {
  if (!value.is_array()) throw FormatError(path, 8, name + ": \"shape\" is no list");
  std::vector<int64_t> dims;
  for (const auto& extent : value) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() > (uint64_t{1} << 46))
      throw FormatError(path, 8, name + ": an extent that is no reasonable natural number: " + json_excerpt(extent));
    dims.push_back(extent.get<int64_t>());
  }
  try {
    return Shape(dims);
  } catch (const ShapeError& error) {
    throw FormatError(path, 8, name + ": " + error.what());
  }
}

SafetensorsEntry read_entry(const std::string& path, const std::string& name, const nlohmann::ordered_json& value,
                            int64_t data_begin, int64_t file_bytes) {
  if (!value.is_object()) throw FormatError(path, 8, name + ": its header entry is no object");
  const auto field = [&](const char* key) -> const nlohmann::ordered_json& {
    const auto found = value.find(key);
    if (found == value.end()) throw FormatError(path, 8, name + ": \"" + key + "\" is missing");
    return *found;
  };
  SafetensorsEntry entry;
  if (!field("dtype").is_string()) throw FormatError(path, 8, name + ": \"dtype\" is no string");
  entry.type = field("dtype").get<std::string>();
  const int64_t bits = bits_of_type(entry.type);
  if (bits == 0) throw FormatError(path, 8, name + ": unknown dtype " + entry.type);
  entry.shape = read_shape(path, name, field("shape"));
  const auto& offsets = field("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    throw FormatError(path, 8, name + ": \"data_offsets\" is no pair of natural numbers");
  const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  const auto data_bytes = static_cast<uint64_t>(file_bytes - data_begin);
  if (end < begin) throw FormatError(path, 8, name + ": its data ends before it begins");
  if (end > data_bytes)
    throw FormatError(path, 8,
                      name + ": its data ends at " + std::to_string(end) + ", but the file holds " +
                          std::to_string(data_bytes) + " bytes of data; it may be truncated: fetch it again");
  // Shape keeps products below 2^62; only the element size is left to multiply.
  if (entry.shape.numel() > (int64_t{1} << 56) || static_cast<uint64_t>(entry.shape.numel() * bits / 8) != end - begin)
    throw FormatError(path, 8,
                      name + ": " + entry.type + to_string(entry.shape) + " does not take the " +
                          std::to_string(end - begin) + " bytes of its data_offsets");
  entry.begin = data_begin + static_cast<int64_t>(begin);
  entry.end = data_begin + static_cast<int64_t>(end);
  return entry;
}

}  // namespace

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  auto contents = std::make_shared<Contents>();
  contents->file = MappedFile::open(path);
  const std::string name = path.string();
  const auto bytes = contents->file->bytes();
  const std::string_view beginning(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 4096));
  if (const std::string instead = what_it_is_instead(beginning); !instead.empty()) throw FormatError(name, 0, instead);
  if (bytes.size() < 9) throw FormatError(name, 0, "is too short for a safetensors file");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  if (header_bytes > longest_header)
    throw FormatError(name, 0, "a header of " + std::to_string(header_bytes) + " bytes is above the format's limit");
  if (header_bytes > bytes.size() - 8)
    throw FormatError(name, 0,
                      "a header of " + std::to_string(header_bytes) + " bytes in a file of " +
                          std::to_string(bytes.size()) + "; it may be truncated: fetch it again");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + 8), header_bytes);
  if (text.empty() || text[0] != '{') throw FormatError(name, 8, "the header does not begin with '{'");
  const nlohmann::ordered_json header = parse_json(text, name + ", its header", RepeatedKeys::refused);

  const auto data_begin = static_cast<int64_t>(8 + header_bytes), file_bytes = static_cast<int64_t>(bytes.size());
  std::vector<std::pair<int64_t, std::string>> order;
  for (const auto& [key, value] : header.items()) {
    if (key == "__metadata__") {
      if (!value.is_object()) throw FormatError(name, 8, "__metadata__ is no object");
      for (const auto& [entry, text_value] : value.items()) {
        if (!text_value.is_string()) throw FormatError(name, 8, "__metadata__." + entry + " is no string");
        contents->metadata[entry] = text_value.get<std::string>();
      }
      continue;
    }
    const auto placed = contents->entries.emplace(key, read_entry(name, key, value, data_begin, file_bytes)).first;
    order.emplace_back(placed->second.begin, key);
  }
  // An empty tensor shares its offset with the next: the one that ends first comes first.
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    const auto &left = contents->entries.at(a.second), &right = contents->entries.at(b.second);
    return std::tie(left.begin, left.end, a.second) < std::tie(right.begin, right.end, b.second);
  });
  int64_t expected = data_begin;
  for (const auto& [begin, key] : order) {
    const SafetensorsEntry& entry = contents->entries.at(key);
    if (begin != expected)
      throw FormatError(
          name, std::min(begin, expected),
          key + (begin < expected ? ": overlaps the tensor before it" : ": a hole before it in the data"));
    expected = entry.end;
    contents->names.push_back(key);
  }
  if (expected != file_bytes)
    throw FormatError(name, expected, std::to_string(file_bytes - expected) + " bytes follow the last tensor's end");
  // Mapped read-only: tensors of this storage are never written.
  contents->storage = Storage::wrap(const_cast<std::byte*>(bytes.data()), file_bytes, {}, contents->file);
  auto file = std::make_shared<SafetensorsFile>();
  file->contents_ = std::move(contents);
  return file;
}

const std::filesystem::path& SafetensorsFile::path() const { return contents_->file->path(); }
const std::vector<std::string>& SafetensorsFile::names() const { return contents_->names; }
bool SafetensorsFile::contains(std::string_view name) const {
  return contents_->entries.find(name) != contents_->entries.end();
}
const std::map<std::string, std::string, std::less<>>& SafetensorsFile::metadata() const { return contents_->metadata; }

void SafetensorsFile::release_pages() const { contents_->file->release_pages(); }

const SafetensorsEntry& SafetensorsFile::entry(std::string_view name) const {
  const auto found = contents_->entries.find(name);
  if (found == contents_->entries.end()) throw FormatError(path().string(), -1, "has no tensor " + std::string(name));
  return found->second;
}

const std::string& SafetensorsFile::type(std::string_view name) const { return entry(name).type; }

Tensor SafetensorsFile::bytes(std::string_view name) const {
  const SafetensorsEntry& found = entry(name);
  if (bits_of_type(found.type) != 8)
    throw FormatError(path().string(), found.begin,
                      std::string(name) + ": expected a type of 8 bits, found " + found.type);
  return Tensor::from_storage(contents_->storage, found.begin, found.shape, DType::u8);
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry& entry = this->entry(name);
  const auto dtype = dtype_named(entry.type);
  if (!dtype)
    throw FormatError(path().string(), entry.begin,
                      std::string(name) + ": dtype " + entry.type + " cannot be computed with");
  if (entry.begin % size_of(*dtype) == 0)
    return Tensor::from_storage(contents_->storage, entry.begin, entry.shape, *dtype);
  // A writer that did not pad its header: such a tensor is copied to where its type may be read.
  const Tensor copy = Tensor::empty(entry.shape, *dtype, {}, MemoryTag::weights);
  std::memcpy(copy.raw(), contents_->file->bytes().data() + entry.begin, static_cast<size_t>(entry.end - entry.begin));
  return copy;
}

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string, std::less<>>& metadata) {
  std::vector<const std::pair<std::string, Tensor>*> order;
  for (const auto& named : tensors) {
    if (!named.second.is_contiguous() || named.second.device().kind != DeviceKind::cpu)
      throw ShapeError(named.first + ": only contiguous CPU tensors can be written, found " + describe(named.second));
    order.push_back(&named);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::make_pair(write_rank(a->second.dtype()), std::string_view(a->first)) <
           std::make_pair(write_rank(b->second.dtype()), std::string_view(b->first));
  });
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const auto* named : order) {
    const Tensor& tensor = named->second;
    if (header.contains(named->first)) throw ShapeError("the tensor " + named->first + " is given twice");
    header[named->first] = {{"dtype", safetensors_name(tensor.dtype())},
                            {"shape", std::vector<int64_t>(tensor.shape().dims().begin(), tensor.shape().dims().end())},
                            {"data_offsets", {offset, offset + tensor.nbytes()}}};
    offset += tensor.nbytes();
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const auto* named : order)
    file.write(
        std::span(static_cast<const std::byte*>(named->second.raw()), static_cast<size_t>(named->second.nbytes())));
  file.commit();
}

}  // namespace lathe::nn
