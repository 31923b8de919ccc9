// Text made from text and values: replacing, padding, "%s: %d".
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "data/chat_template/builtins.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {

Text replaced(const Text& text, const Text& from, const Text& to, int64_t count, Budget& budget) {
  Text result;
  const std::string& bytes = text.bytes;
  // What it will take is paid before it is made: text, and up to two marks of origin for each place.
  uint64_t places = 0;
  if (from.bytes.empty()) places = character_count(bytes) + 1;
  for (size_t at = 0; !from.bytes.empty() && (at = find_text(bytes, from.bytes, at)) != std::string::npos;
       at += from.bytes.size())
    ++places;
  if (count >= 0) places = std::min(places, static_cast<uint64_t>(count));
  budget.spend(4 * places);
  budget.check_bytes(bytes.size() - places * from.bytes.size() + places * to.bytes.size());
  if (from.bytes.empty()) {  // Python puts `to` before each character and at the end
    for (size_t at = 0; at <= bytes.size(); --count) {
      if (count == 0) {
        result.append(text.slice(at, bytes.size()));
        return result;
      }
      result.append(to);
      if (at == bytes.size()) break;
      const size_t end = at + code_point_length(bytes[at]);
      result.append(text.slice(at, end));
      at = end;
    }
    return result;
  }
  size_t done = 0;
  for (size_t at = 0; count != 0 && (at = find_text(bytes, from.bytes, at)) != std::string::npos; --count) {
    result.append(text.slice(done, at));
    result.append(to);
    at += from.bytes.size();
    done = at;
  }
  result.append(text.slice(done, bytes.size()));
  return result;
}

Text percent_format(const Text& format, const Value& values, Budget& budget) {
  const List* tuple = values.list() && values.list()->kind == List::Kind::tuple ? values.list() : nullptr;
  size_t used = 0, copied = 0;
  const auto take = [&]() -> const Value& {
    if (used >= (tuple ? tuple->items.size() : 1)) refuse(budget, "not enough values for a format string");
    ++used;
    return tuple ? tuple->items[used - 1] : values;
  };
  Text result;
  const std::string& bytes = format.bytes;
  for (size_t at = 0; (at = bytes.find('%', at)) != std::string::npos; copied = at) {
    result.append(format.slice(copied, at));
    std::string specification = "%";
    for (++at; at < bytes.size() && std::string_view("-+ #0123456789.").find(bytes[at]) != std::string_view::npos; ++at)
      specification += bytes[at];
    if (at >= bytes.size() || specification.size() > 8)
      refuse(budget, "a format string is incomplete or has too many digits");
    const char kind = bytes[at++];
    if (kind == '%') {
      result.append(Text::own("%"));
      continue;
    }
    const Value& value = take();
    if (kind == 's' || kind == 'r') {
      const Text shown = kind == 's' ? text_of(value, budget) : Text::foreign(representation_of(value, budget));
      const bool to_left = specification.find('-') != std::string::npos;
      const size_t digits = specification.find_first_of("123456789");
      if (specification.find('.') != std::string::npos)
        refuse(budget, "precisions of strings in format strings are not supported");
      result.append(padded(shown, digits == std::string::npos ? 0 : std::atoll(specification.c_str() + digits),
                           to_left ? Alignment::left : Alignment::right, " ", budget));
    } else if (std::holds_alternative<LargeInteger>(value.variant) && (kind == 'd' || kind == 'i')) {
      if (specification.size() > 1) refuse(budget, "widths of such large integers in format strings are not supported");
      result.append(Text::own(representation_of(value, budget)));
    } else if (kind == 'd' || kind == 'i' || kind == 'x' || kind == 'f' || kind == 'g' || kind == 'e') {
      if (!value.number()) refuse(budget, std::string("%") + kind + " needs a number, not " + type_name(value));
      const bool whole = kind == 'd' || kind == 'i' || kind == 'x';
      // Width and precision may have up to six digits: the length is asked for before the buffer is made.
      specification += whole ? "ll" : "";
      specification += kind;
      std::string buffer;
      const auto print = [&](auto number) {
        const int length = std::snprintf(nullptr, 0, specification.c_str(), number);
        if (length < 0) refuse(budget, "a format string is malformed");
        budget.check_bytes(static_cast<size_t>(length));
        buffer.resize(static_cast<size_t>(length) + 1);
        std::snprintf(buffer.data(), buffer.size(), specification.c_str(), number);
        buffer.pop_back();
      };
      if (whole) {
        print(static_cast<long long>(value.integer() ? *value.integer()
                                                     : static_cast<int64_t>(std::clamp(*value.number(), -9e18, 9e18))));
      } else {
        print(*value.number());
      }
      result.append(Text::own(std::move(buffer)));
    } else {
      refuse(budget, std::string("%") + kind + " in a format string is not supported");
    }
    budget.check_bytes(result.bytes.size());
  }
  result.append(format.slice(copied, bytes.size()));
  return result;
}

Text padded(const Text& text, int64_t width, Alignment alignment, const std::string& fill, Budget& budget) {
  const auto length = static_cast<int64_t>(character_count(text.bytes));
  if (width <= length) return text;
  const int64_t missing = width - length;
  if (missing > (int64_t{1} << 40)) budget.check_bytes(SIZE_MAX);
  budget.check_bytes(text.bytes.size() + static_cast<size_t>(missing) * fill.size());
  // Python's centre: of an odd rest the larger half stands left where the width is odd, too.
  const int64_t left = alignment == Alignment::left    ? 0
                       : alignment == Alignment::right ? missing
                                                       : missing / 2 + (missing & width & 1);
  const auto filling = [&](int64_t count) {
    std::string characters;
    for (int64_t i = 0; i < count; ++i) characters += fill;
    return Text::like(text, std::move(characters));
  };
  Text result = filling(left);
  result.append(text);
  result.append(filling(missing - left));
  return result;
}

}  // namespace lathe::data::jinja
