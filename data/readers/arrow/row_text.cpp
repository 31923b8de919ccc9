#include <charconv>
#include <cmath>

#include "data/readers/arrow/batch.h"

namespace lathe::data::arrow {
namespace {

template <class T>
T at(Bytes bytes, int64_t index) {
  return FlatTable::load<T>(bytes, static_cast<size_t>(index) * sizeof(T));
}

bool bit(Bytes bits, int64_t index) { return (at<uint8_t>(bits, index / 8) >> (index % 8) & 1) != 0; }

int64_t integer(Bytes values, int bytes, int64_t index) {
  switch (bytes) {
    case 1: return at<int8_t>(values, index);
    case 2: return at<int16_t>(values, index);
    case 4: return at<int32_t>(values, index);
    default: return at<int64_t>(values, index);
  }
}

uint64_t unsigned_integer(Bytes values, int bytes, int64_t index) {
  switch (bytes) {
    case 1: return at<uint8_t>(values, index);
    case 2: return at<uint16_t>(values, index);
    case 4: return at<uint32_t>(values, index);
    default: return at<uint64_t>(values, index);
  }
}

double half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31  ? (fraction ? std::nan("") : HUGE_VAL)
                      : exponent == 0 ? std::ldexp(fraction, -24)
                                      : std::ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -size : size;
}

double floating(Bytes values, int bytes, int64_t index) {
  switch (bytes) {
    case 2: return half(at<uint16_t>(values, index));
    case 4: return at<float>(values, index);
    default: return at<double>(values, index);
  }
}

class RowWriter {
 public:
  RowWriter(std::string& json, int64_t max_bytes)
      : json_(json), max_bytes_(json.size() + static_cast<size_t>(max_bytes)) {}

  void row(const Batch& batch, int64_t index) { members(batch.columns, index); }

 private:
  bool is_null(const Column& column, int64_t index) const {
    if (!column.field->dictionary && column.field->kind == Kind::null) return true;
    if (!column.validity.empty() && !bit(column.validity, index)) return true;
    return column.dictionary && is_null(column.dictionary->columns[0], dictionary_index(column, index));
  }

  // Members that are null are left out: a column of structs has every member that some row has.
  void members(const std::vector<Column>& columns, int64_t index) {
    json_ += '{';
    bool first = true;
    for (const Column& column : columns) {
      if (is_null(column, index)) continue;
      if (!first) json_ += ',';
      first = false;
      text(column.field->name);
      json_ += ':';
      value(column, index);
    }
    json_ += '}';
    check_size();
  }

  void value(const Column& column, int64_t index) {
    check_size();
    const Field& field = *column.field;
    if (is_null(column, index)) {
      json_ += "null";
      return;
    }
    if (field.dictionary) return value(column.dictionary->columns[0], dictionary_index(column, index));
    switch (field.kind) {
      case Kind::null: json_ += "null"; return;
      case Kind::boolean: json_ += bit(column.values, index) ? "true" : "false"; return;
      case Kind::integer:
        field.is_signed ? number(integer(column.values, field.bytes, index))
                        : number(unsigned_integer(column.values, field.bytes, index));
        return;
      case Kind::floating: floating_number(floating(column.values, field.bytes, index)); return;
      case Kind::text: {
        const auto [begin, end] = range(column, index, std::ssize(column.text));
        text(view(column.text, begin, end - begin));
        return;
      }
      case Kind::text_view: text(viewed(column, index)); return;
      case Kind::list: {
        const auto [begin, end] = range(column, index, column.children[0].length);
        list(column.children[0], begin, end);
        return;
      }
      case Kind::fixed_list: list(column.children[0], index * field.list_size, (index + 1) * field.list_size); return;
      case Kind::structure: members(column.children, index); return;
      case Kind::map: {
        const auto [begin, end] = range(column, index, column.children[0].length);
        map(column.children[0], begin, end);
        return;
      }
    }
  }

  void list(const Column& values, int64_t begin, int64_t end) {
    json_ += '[';
    for (int64_t i = begin; i < end; ++i) {
      if (i > begin) json_ += ',';
      value(values, i);
    }
    json_ += ']';
  }

  void map(const Column& entries, int64_t begin, int64_t end) {
    const Column &keys = entries.children[0], &values = entries.children[1];
    json_ += '{';
    for (int64_t i = begin; i < end; ++i) {
      if (i > begin) json_ += ',';
      const Kind kind = keys.field->kind;
      const bool is_text = kind == Kind::text || kind == Kind::text_view;
      if (!is_text || is_null(keys, i)) throw Error("the keys of its map \"" + entries.field->name + "\" are no text");
      value(keys, i);
      json_ += ':';
      value(values, i);
    }
    json_ += '}';
  }

  static int64_t dictionary_index(const Column& column, int64_t index) {
    const Field& field = *column.field;
    const int64_t place = field.index_is_signed
                              ? integer(column.values, field.index_bytes, index)
                              : static_cast<int64_t>(unsigned_integer(column.values, field.index_bytes, index));
    if (place < 0 || place >= column.dictionary->rows) throw Error("a value is none of its dictionary");
    return place;
  }

  static std::pair<int64_t, int64_t> range(const Column& column, int64_t index, int64_t limit) {
    const int bytes = column.field->bytes;
    const int64_t begin = integer(column.offsets, bytes, index), end = integer(column.offsets, bytes, index + 1);
    if (begin < 0 || end < begin || end > limit) throw Error("a value lies beyond the end of its column");
    return {begin, end};
  }

  static std::string_view view(Bytes bytes, int64_t begin, int64_t length) {
    return {reinterpret_cast<const char*>(bytes.data()) + begin, static_cast<size_t>(length)};
  }

  // Up to 12 bytes lie in the view itself; longer ones are (length, first four bytes, buffer, offset).
  static std::string_view viewed(const Column& column, int64_t index) {
    const Bytes own = column.values.subspan(static_cast<size_t>(index) * 16, 16);
    const int64_t length = at<int32_t>(own, 0);
    if (length >= 0 && length <= 12) return view(own, 4, length);
    const int64_t buffer = at<int32_t>(own, 2), offset = at<int32_t>(own, 3);
    if (length < 0 || buffer < 0 || buffer >= std::ssize(column.view_buffers) || offset < 0 ||
        offset + length > std::ssize(column.view_buffers[static_cast<size_t>(buffer)]))
      throw Error("a value lies beyond the end of its column");
    return view(column.view_buffers[static_cast<size_t>(buffer)], offset, length);
  }

  template <class Number>
  void number(Number value) {
    char digits[32];
    json_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  // The shortest text of the same double, which stays one; JSON has no other numbers.
  void floating_number(double value) {
    if (!std::isfinite(value)) {
      json_ += "null";
      return;
    }
    const size_t begin = json_.size();
    number(value);
    if (json_.find_first_of(".e", begin) == std::string::npos) json_ += ".0";
  }

  // Bytes beyond ASCII stay as they are: whoever parses the row says where they are no UTF-8.
  void text(std::string_view value) {
    if (value.size() > max_bytes_) too_long();
    json_ += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') {
        json_ += '\\';
        json_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        constexpr const char* digits = "0123456789abcdef";
        json_ += "\\u00";
        json_ += digits[c >> 4];
        json_ += digits[c & 15];
      } else {
        json_ += c;
      }
    }
    json_ += '"';
    check_size();
  }

  void check_size() const {
    if (json_.size() > max_bytes_) too_long();
  }
  [[noreturn]] static void too_long() { throw Error("is longer than a row may be; a row is one example"); }

  std::string& json_;
  size_t max_bytes_;
};

}  // namespace

void append_row(std::string& json, const Batch& batch, int64_t row, int64_t max_bytes) {
  RowWriter(json, max_bytes).row(batch, row);
}

}  // namespace lathe::data::arrow
