#include "serve/engine/grammar/json_values.h"

#include <algorithm>
#include <map>

#include "serve/engine/grammar/characters.h"

namespace lathe::engine {
namespace {

using Part = GrammarBuilder::Part;

constexpr int64_t most_blanks = 16, most_fraction_digits = 15, most_exponent_digits = 2;

Part digit(GrammarBuilder& builder, char low = '0', char high = '9') {
  return builder.byte_range(static_cast<uint8_t>(low), static_cast<uint8_t>(high));
}
Part digits(GrammarBuilder& builder, int64_t least, int64_t most) {
  return builder.repeat(least, most, [&] { return digit(builder); });
}

// Any character of a string, spelled in any way that JSON has; no half of a surrogate pair.
Part string_character(GrammarBuilder& builder) {
  const auto hexadecimal = [&](char low_digit = '0') {
    return builder.any_of({digit(builder, low_digit), builder.byte_range('a', 'f'), builder.byte_range('A', 'F')});
  };
  std::vector<Part> named;
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) named.push_back(builder.text({&c, 1}));
  const Part not_d =
      builder.sequence({builder.any_of({digit(builder), builder.byte_range('a', 'c'), builder.byte_range('e', 'f'),
                                        builder.byte_range('A', 'C'), builder.byte_range('E', 'F')}),
                        hexadecimal()});
  const Part below_d8 =
      builder.sequence({builder.any_of({builder.text("d"), builder.text("D")}), digit(builder, '0', '7')});
  const Part unicode =
      builder.sequence({builder.text("u"), builder.any_of({not_d, below_d8}), hexadecimal(), hexadecimal()});
  named.push_back(unicode);
  return builder.any_of({utf8_character(builder, plain_json_characters()),
                         builder.sequence({builder.text("\\"), builder.any_of(named)})});
}

// The digits of low … high, both of as many digits, from the position on.
Part same_length(GrammarBuilder& builder, const std::string& low, const std::string& high, size_t at) {
  const auto is_all = [&](const std::string& digits, char digit) {
    return digits.find_first_not_of(digit, at) == std::string::npos;
  };
  if (is_all(low, '0') && is_all(high, '9'))
    return digits(builder, static_cast<int64_t>(low.size() - at), static_cast<int64_t>(low.size() - at));
  const auto left = static_cast<int64_t>(low.size() - at - 1);
  const char a = low[at], b = high[at];
  const auto all = [&](char digit) { return std::string(low.size(), digit); };
  if (a == b) return builder.sequence({digit(builder, a, a), same_length(builder, low, high, at + 1)});
  std::vector<Part> parts{builder.sequence({digit(builder, a, a), same_length(builder, low, all('9'), at + 1)}),
                          builder.sequence({digit(builder, b, b), same_length(builder, all('0'), high, at + 1)})};
  if (b - a > 1)
    parts.push_back(builder.sequence(
        {digit(builder, static_cast<char>(a + 1), static_cast<char>(b - 1)), digits(builder, left, left)}));
  return builder.any_of(parts);
}

// The integers low … high, 0 ≤ low; none where low > high.
Part natural(GrammarBuilder& builder, int64_t low, int64_t high) {
  std::vector<Part> parts;
  for (int64_t first = low; first <= high;) {
    const std::string from = std::to_string(first);
    const int64_t nines = std::stoll(std::string(from.size(), '9'));
    parts.push_back(same_length(builder, from, std::to_string(std::min(nines, high)), 0));
    first = nines + 1;
  }
  return builder.any_of(parts);
}

struct SignedBounds {
  int64_t least, most;
};
SignedBounds whole(const NumberBounds& bounds) {
  const auto within = [](int64_t value) { return std::clamp(value, -most_integer, most_integer); };
  return {within(bounds.least.value_or(-most_integer)), within(bounds.most.value_or(most_integer))};
}

// low … high with a fraction, 0 ≤ low: high itself has none but zeros.
Part decimal(GrammarBuilder& builder, int64_t low, int64_t high, bool high_is_bound) {
  const Part fraction = builder.sequence({builder.text("."), digits(builder, 1, most_fraction_digits)});
  if (!high_is_bound) return builder.sequence({natural(builder, low, high), builder.optional(fraction)});
  const Part zeros = builder.sequence({builder.text(".0")});
  return builder.any_of({builder.sequence({natural(builder, low, high - 1), builder.optional(fraction)}),
                         builder.sequence({natural(builder, high, high), builder.optional(zeros)})});
}

}  // namespace

Part json_blank(GrammarBuilder& builder) {
  const auto blank = [&] { return builder.any_of({builder.text(" "), builder.text("\t")}); };
  return builder.any_of({builder.empty(), builder.text(" "),
                         builder.sequence({builder.text("\n"), builder.repeat(0, most_blanks, blank)})});
}

Part json_string(GrammarBuilder& builder, int64_t least, int64_t most) {
  const Part text = builder.repeat(
      least, most, [&] { return builder.call("string character", [&] { return string_character(builder); }); });
  return builder.sequence({builder.text("\""), text, builder.text("\"")});
}

Part json_string_other_than(GrammarBuilder& builder, const std::vector<std::string>& names) {
  // A tree of the names' characters; a text that leaves it is free.
  struct Node {
    std::map<uint32_t, size_t> next;
    bool is_name = false;
  };
  std::vector<Node> tree(1);
  for (const std::string& name : names) {
    size_t at = 0;
    for (const uint32_t character : characters_of(name, builder)) {
      const auto [place, made] = tree[at].next.try_emplace(character, tree.size());
      at = place->second;
      if (made) tree.emplace_back();
    }
    tree[at].is_name = true;
  }
  const Characters plain = plain_json_characters();
  const Part open = builder.text("\""), close = builder.text("\"");
  const Part rest = builder.repeat(0, -1, [&] { return utf8_character(builder, plain); });
  builder.link(rest.end, close.start);
  std::vector<int32_t> states;
  for (size_t i = 0; i < tree.size(); ++i) states.push_back(builder.new_state());
  builder.link(open.end, states[0]);
  for (size_t i = 0; i < tree.size(); ++i) {
    Characters others = plain;
    for (const auto& [character, child] : tree[i].next) {
      others = without(others, {{character, character}});
      const Characters one = without({{character, character}}, complement(plain));
      const Part step = utf8_character(builder, one);
      builder.link(states[i], step.start);
      builder.link(step.end, states[child]);
    }
    const Part leave = utf8_character(builder, others);
    builder.link(states[i], leave.start);
    builder.link(leave.end, rest.start);
    if (!tree[i].is_name) builder.link(states[i], close.start);
  }
  return {open.start, close.end};
}

Part json_integer(GrammarBuilder& builder, const NumberBounds& bounds) {
  const auto [least, most] = whole(bounds);
  std::vector<Part> parts;
  if (most >= 0) parts.push_back(natural(builder, std::max<int64_t>(least, 0), most));
  if (least < 0)
    parts.push_back(builder.sequence({builder.text("-"), natural(builder, std::max<int64_t>(1, -most), -least)}));
  return builder.any_of(parts);
}

Part json_number(GrammarBuilder& builder, const NumberBounds& bounds) {
  if (!bounds.least && !bounds.most) {
    const Part mantissa = decimal(builder, 0, most_integer, false);
    const Part sign = builder.optional(builder.any_of({builder.text("+"), builder.text("-")}));
    const Part exponent = builder.sequence(
        {builder.any_of({builder.text("e"), builder.text("E")}), sign, digits(builder, 1, most_exponent_digits)});
    return builder.sequence({builder.optional(builder.text("-")), mantissa, builder.optional(exponent)});
  }
  const auto [least, most] = whole(bounds);
  std::vector<Part> parts;
  if (most >= 0) parts.push_back(decimal(builder, std::max<int64_t>(least, 0), most, bounds.most.has_value()));
  if (least < 0)
    parts.push_back(builder.sequence(
        {builder.text("-"), decimal(builder, std::max<int64_t>(-most, 0), -least, bounds.least.has_value())}));
  return builder.any_of(parts);
}

Part json_list(GrammarBuilder& builder, int64_t least, int64_t most, const std::function<Part()>& make) {
  const auto comma = [&] { return builder.sequence({builder.text(","), json_blank(builder)}); };
  const auto more = [&] { return builder.sequence({comma(), make()}); };
  if (most == 0) return builder.empty();
  const Part some =
      builder.sequence({make(), builder.repeat(std::max<int64_t>(least - 1, 0), most < 0 ? -1 : most - 1, more)});
  return least > 0 ? some : builder.optional(some);
}

AnyJson define_any_json(GrammarBuilder& builder) {
  const AnyJson any{builder.new_rule(), builder.new_rule()};
  const int32_t array = builder.new_rule();
  const auto member = [&] {
    return builder.sequence({json_string(builder), builder.text(":"), json_blank(builder), builder.call(any.value)});
  };
  const auto item = [&] { return builder.call(any.value); };
  const auto around = [&](const char* open, Part inside, const char* close) {
    return builder.sequence(
        {builder.text(open), json_blank(builder), inside, json_blank(builder), builder.text(close)});
  };
  builder.define(any.object, around("{", json_list(builder, 0, -1, member), "}"));
  builder.define(array, around("[", json_list(builder, 0, -1, item), "]"));
  builder.define(any.value, builder.any_of({builder.call(any.object), builder.call(array), json_string(builder),
                                            json_number(builder, {}), builder.text("true"), builder.text("false"),
                                            builder.text("null")}));
  return any;
}

}  // namespace lathe::engine
