#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/json_value.h"
#include "core/mapped_file.h"

namespace lathe {
namespace {

using nlohmann::ordered_json;
using Members = std::vector<std::pair<std::string, ordered_json>>;

constexpr size_t excerpt_bytes = 60;

// Builds the value from the parser's events. A container that is not closed yet is a Level; nothing recurses.
class Builder : public nlohmann::json_sax<ordered_json> {
 public:
  Builder(const std::string& file, RepeatedKeys repeated, LargeIntegers large)
      : file_(file), repeated_(repeated), large_(large) {}
  ordered_json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    // The parser hands over integers beyond 64 bits as floats.
    if (large_ == LargeIntegers::refused && text.find_first_of(".eE") == std::string::npos)
      throw FormatError(file_, -1, "the integer " + text.substr(0, excerpt_bytes) + " needs more than 64 bits");
    return put(value);
  }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(false); }
  bool start_array(size_t) override { return open(true); }
  bool key(string_t& value) override {
    levels_.back().key = std::move(value);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // 406: a number that no double holds.
    if (error.id == 406)
      throw FormatError(file_, static_cast<int64_t>(position), "a number is out of range: " + reason_of(error));
    throw FormatError(file_, static_cast<int64_t>(position), "is no JSON: " + reason_of(error));
  }

 private:
  struct Level {
    bool array;
    std::string key;
    ordered_json::array_t items;
    Members members;
  };

  // Without the library's "[json.exception.…] " and, where it follows, "parse error at line 1, column 5: ".
  static std::string reason_of(const nlohmann::detail::exception& error) {
    std::string_view text = error.what();
    if (const size_t name = text.find("] "); text.starts_with('[') && name != text.npos) text.remove_prefix(name + 2);
    const size_t colon = text.find(": ");
    if (text.starts_with("parse error") && colon != text.npos) text.remove_prefix(colon + 2);
    return std::string(text);
  }

  bool put(ordered_json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
    } else if (levels_.back().array) {
      levels_.back().items.push_back(std::move(value));
    } else {
      levels_.back().members.emplace_back(std::move(levels_.back().key), std::move(value));
    }
    return true;
  }

  bool open(bool array) {
    if (levels_.size() == max_json_nesting)
      throw FormatError(file_, -1, "is nested deeper than " + std::to_string(max_json_nesting) + " levels");
    levels_.push_back({array, {}, {}, {}});
    return true;
  }

  bool close() {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    if (level.array) return put(ordered_json(std::move(level.items)));
    if (repeated_ == RepeatedKeys::refused) check_keys(level.members);
    return put(json_object(std::move(level.members)));
  }

  void check_keys(const Members& members) const {
    std::unordered_set<std::string_view> keys;
    for (const auto& [key, value] : members) {
      if (!keys.insert(key).second)
        throw FormatError(file_, -1, "has the key \"" + key.substr(0, excerpt_bytes) + "\" twice");
    }
  }

  const std::string& file_;
  RepeatedKeys repeated_;
  LargeIntegers large_;
  ordered_json root_;
  std::vector<Level> levels_;
};

}  // namespace

ordered_json parse_json(std::string_view text, const std::string& file, RepeatedKeys repeated, LargeIntegers large) {
  Builder builder(file, repeated, large);
  if (!ordered_json::sax_parse(text.begin(), text.end(), &builder)) throw FormatError(file, -1, "is no JSON");
  return builder.take();
}

ordered_json read_json_file(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return parse_json(text, path.string(), RepeatedKeys::last_counts, LargeIntegers::as_doubles);
}

ordered_json json_object(Members members) {
  ordered_json object = ordered_json::object();
  // The map's own insertion compares with every key before it: past the base class, with an index of the keys, it is
  // linear.
  auto& entries =
      static_cast<std::vector<std::pair<const std::string, ordered_json>>&>(*object.get_ptr<ordered_json::object_t*>());
  entries.reserve(members.size());
  std::unordered_map<std::string_view, size_t> places;
  for (auto& member : members) {
    const auto [place, added] = places.emplace(member.first, entries.size());
    if (added) {
      entries.emplace_back(member.first, std::move(member.second));
    } else {
      entries[place->second].second = std::move(member.second);
    }
  }
  return object;
}

const ordered_json& json_member(const ordered_json& object, const std::string& key, const std::string& file) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || found == object.end()) throw FormatError(file, -1, "has no \"" + key + "\"");
  return *found;
}

const ordered_json& json_list(const ordered_json& object, const std::string& key, const std::string& file) {
  const ordered_json& value = json_member(object, key, file);
  if (!value.is_array()) throw FormatError(file, -1, key + ": expected a list, found " + json_excerpt(value));
  return value;
}

std::string json_text(const ordered_json& object, const std::string& key, const std::string& file) {
  const ordered_json& value = json_member(object, key, file);
  if (!value.is_string()) throw FormatError(file, -1, key + ": expected a string, found " + json_excerpt(value));
  return value.get<std::string>();
}

bool json_truth(const ordered_json& object, const std::string& key, const std::string& file) {
  const ordered_json& value = json_member(object, key, file);
  if (!value.is_boolean()) throw FormatError(file, -1, key + ": expected true or false, found " + json_excerpt(value));
  return value.get<bool>();
}

int64_t json_integer(const ordered_json& value, const std::string& key, int64_t least, int64_t greatest,
                     const std::string& file) {
  bool fits = false;
  int64_t integer = 0;
  if (value.is_number_unsigned()) {
    fits = value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    integer = fits ? value.get<int64_t>() : 0;
  } else if (value.is_number_integer()) {
    fits = true;
    integer = value.get<int64_t>();
  } else if (value.is_number_float()) {
    const double number = value.get<double>();
    fits = std::trunc(number) == number && std::fabs(number) <= 0x1p53;
    integer = fits ? static_cast<int64_t>(number) : 0;
  }
  if (!fits || integer < least || integer > greatest)
    throw FormatError(file, -1,
                      key + ": expected an integer from " + std::to_string(least) + " to " + std::to_string(greatest) +
                          ", found " + json_excerpt(value));
  return integer;
}

double json_number(const ordered_json& value, const std::string& key, const std::string& file) {
  if (!value.is_number()) throw FormatError(file, -1, key + ": expected a number, found " + json_excerpt(value));
  return value.get<double>();
}

std::string json_excerpt(const ordered_json& value) {
  // A value of any size: containers are named, not written out, unless they are small.
  std::string text;
  if (value.is_array() && value.size() > 8) {
    text = "a list of " + std::to_string(value.size());
  } else if (value.is_object()) {
    text = "an object of " + std::to_string(value.size());
  } else {
    text = value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  }
  if (text.size() <= excerpt_bytes) return text;
  size_t end = excerpt_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace lathe
