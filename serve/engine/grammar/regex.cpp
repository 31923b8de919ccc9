#include "serve/engine/grammar/regex.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace lathe::engine {
namespace {

using Part = GrammarBuilder::Part;

constexpr int most_nesting = 100;
constexpr int64_t most_repeats = 10'000;

// Characters of a set, a sequence, alternatives, or the only child so many times.
struct Expression {
  enum Kind { characters, sequence, any_of, repeat } kind = sequence;
  Characters set = {};
  std::vector<Expression> children = {};
  int64_t least = 1, most = 1;  // most < 0: without end
};

// One alternative of the whole pattern.
struct Alternative {
  Expression expression;
  bool from_start = false, to_end = false;
};

const Characters decimal_digits{{'0', '9'}};
const Characters word{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Characters space{{'\t', '\r'}, {' ', ' '}};

class Parser {
 public:
  Parser(std::string_view pattern, const GrammarBuilder& builder)
      : builder_(builder), text_(characters_of(pattern, builder)) {}

  std::vector<Alternative> parse() {
    std::vector<Alternative> alternatives;
    do {
      Alternative alternative;
      while (take('^')) alternative.from_start = true;
      alternative.expression = parse_sequence(0);
      while (take('$')) alternative.to_end = true;
      if (more() && peek() != '|')
        fail(peek() == ')' ? "a ')' without a '('" : "'$' is supported at an alternative's end alone");
      alternatives.push_back(std::move(alternative));
    } while (take('|'));
    return alternatives;
  }

 private:
  bool more() const { return at_ < text_.size(); }
  uint32_t peek() const { return more() ? text_[at_] : 0; }
  bool take(char c) {
    if (!more() || text_[at_] != static_cast<uint32_t>(c)) return false;
    ++at_;
    return true;
  }
  uint32_t next(const char* expected) {
    if (!more()) fail(std::string("ends where ") + expected + " is expected");
    return text_[at_++];
  }
  [[noreturn]] void fail(const std::string& reason) const {
    builder_.fail("regular expression, character " + std::to_string(at_) + ": " + reason);
  }

  Expression parse_alternatives(int nesting) {
    Expression result{.kind = Expression::any_of};
    do {
      result.children.push_back(parse_sequence(nesting));
    } while (take('|'));
    return result;
  }

  Expression parse_sequence(int nesting) {
    if (nesting > most_nesting) fail("groups nest deeper than " + std::to_string(most_nesting));
    Expression result{.kind = Expression::sequence};
    while (more() && peek() != '|' && peek() != ')' && peek() != '$') {
      Expression atom = parse_atom(nesting);
      result.children.push_back(parse_repeats(std::move(atom)));
    }
    return result;
  }

  Expression parse_atom(int nesting) {
    const uint32_t c = next("an expression");
    switch (c) {
      case '(': {
        if (take('?') && !take(':')) fail("of the (?…) forms only (?:…) is supported");
        Expression group = parse_alternatives(nesting + 1);
        if (peek() == '$') fail("'$' is supported at an alternative's end alone, outside groups");
        if (!take(')')) fail("a '(' without a ')'");
        return group;
      }
      case '[': return {.kind = Expression::characters, .set = parse_class()};
      case '.': return {.kind = Expression::characters, .set = complement({{'\n', '\n'}})};
      case '\\': return {.kind = Expression::characters, .set = parse_escape()};
      case '^': --at_, fail("'^' is supported at an alternative's start alone, outside groups");
      case '*':
      case '+':
      case '?': --at_, fail("there is nothing to repeat");
      default: return {.kind = Expression::characters, .set = {{c, c}}};
    }
  }

  Expression parse_repeats(Expression atom) {
    while (const auto range = repeat_range()) {
      take('?');  // as few as possible: the same texts
      if (peek() == '+') fail("a possessive quantifier is not supported");
      Expression repeated{.kind = Expression::repeat, .least = range->first, .most = range->second};
      repeated.children.push_back(std::move(atom));
      atom = std::move(repeated);
      if (peek() == '*' || peek() == '?') fail("a quantifier after a quantifier");
    }
    return atom;
  }

  std::optional<std::pair<int64_t, int64_t>> repeat_range() {
    if (take('*')) return {{0, -1}};
    if (take('+')) return {{1, -1}};
    if (take('?')) return {{0, 1}};
    const size_t before = at_;
    if (!take('{')) return {};
    const auto least = number();
    auto most = least;
    if (take(',')) most = peek() == '}' ? std::optional<int64_t>(-1) : number();
    if (!most || !take('}')) {  // plain characters, as in Python
      at_ = before;
      return {};
    }
    if (*most >= 0 && *most < least.value_or(0)) fail("a quantifier {m,n} with m > n");
    return {{least.value_or(0), *most}};
  }

  std::optional<int64_t> number() {
    if (peek() < '0' || peek() > '9') return {};
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (text_[at_++] - '0');
      if (value > most_repeats) fail("a quantifier of more than " + std::to_string(most_repeats));
    }
    return value;
  }

  Characters parse_class() {
    const bool negated = take('^');
    Characters set;
    bool first = true;
    while (first || peek() != ']') {
      first = false;
      const Characters from = class_member();
      const bool range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (!range) {
        set = united(std::move(set), from);
        continue;
      }
      ++at_;
      const Characters to = class_member();
      const auto single = [](const Characters& s) { return s.size() == 1 && s[0].first == s[0].last; };
      if (!single(from) || !single(to) || to[0].first < from[0].first)
        fail("a range of a class must be from low to high");
      set = united(std::move(set), {{from[0].first, to[0].first}});
    }
    ++at_;
    return negated ? complement(set) : set;
  }

  Characters class_member() {
    const uint32_t c = next("the ']' of a class");
    if (c == '\\') return peek() == 'b' ? (++at_, Characters{{'\b', '\b'}}) : parse_escape();
    return {{c, c}};
  }

  Characters parse_escape() {
    const uint32_t c = next("what is escaped");
    switch (c) {
      case 'd': return decimal_digits;
      case 'D': return complement(decimal_digits);
      case 'w': return word;
      case 'W': return complement(word);
      case 's': return space;
      case 'S': return complement(space);
      case 'n': return {{'\n', '\n'}};
      case 't': return {{'\t', '\t'}};
      case 'r': return {{'\r', '\r'}};
      case 'f': return {{'\f', '\f'}};
      case 'v': return {{'\v', '\v'}};
      case 'x': return hexadecimal(2);
      case 'u': return hexadecimal(4);
      default: break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) fail(std::string("'\\") + static_cast<char>(c) + "' is not supported");
    return {{c, c}};
  }

  Characters hexadecimal(int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const uint32_t c = next("a hexadecimal digit");
      const uint32_t digit = c >= '0' && c <= '9'   ? c - '0'
                             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                    : 16;
      if (digit == 16) fail("a hexadecimal digit is expected");
      value = value * 16 + digit;
    }
    const Characters one = united({}, {{value, value}});
    if (one.empty()) fail("half of a surrogate pair is no character");
    return one;
  }

  const GrammarBuilder& builder_;
  std::vector<uint32_t> text_;
  size_t at_ = 0;
};

Part part_of(GrammarBuilder& builder, const Expression& expression, const SpellCharacter& spell) {
  if (expression.kind == Expression::characters) return spell(builder, expression.set);
  if (expression.kind == Expression::repeat)
    return builder.repeat(expression.least, expression.most,
                          [&] { return part_of(builder, expression.children[0], spell); });
  std::vector<Part> parts;
  for (const Expression& child : expression.children) parts.push_back(part_of(builder, child, spell));
  return expression.kind == Expression::sequence ? builder.sequence(parts) : builder.any_of(parts);
}

}  // namespace

Part regex_part(GrammarBuilder& builder, std::string_view pattern, RegexMatch match, const SpellCharacter& spell) {
  const auto anything = [&] { return builder.repeat(0, -1, [&] { return spell(builder, every_character()); }); };
  std::vector<Part> parts;
  for (const Alternative& alternative : Parser(pattern, builder).parse()) {
    std::vector<Part> around;
    if (match == RegexMatch::anywhere && !alternative.from_start) around.push_back(anything());
    around.push_back(part_of(builder, alternative.expression, spell));
    if (match == RegexMatch::anywhere && !alternative.to_end) around.push_back(anything());
    parts.push_back(builder.sequence(around));
  }
  return builder.any_of(parts);
}

std::shared_ptr<const Grammar> regex_grammar(std::string_view pattern) {
  GrammarBuilder builder("regex");
  const int32_t root = builder.new_rule();
  builder.define(root, regex_part(builder, pattern, RegexMatch::whole, utf8_character));
  return builder.finish("regex " + std::string(pattern));
}

}  // namespace lathe::engine
