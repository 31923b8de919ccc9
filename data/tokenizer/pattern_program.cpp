#include "data/tokenizer/pattern_program.h"

#include <algorithm>
#include <charconv>

#include "data/tokenizer/character_sets.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// llama.cpp's names stand for patterns of 20 to 150 steps; the rest is for machines that count higher.
constexpr size_t most_steps = 2000;
constexpr int most_depth = 50;  // of groups
constexpr uint32_t without_end = ~0u;

struct Unsupported {};

bool is_hexadecimal(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

struct Node {
  enum class Kind { set, expect, expect_not, sequence, alternatives, repeated };
  Kind kind;
  uint32_t set = 0;
  uint32_t least = 1, most = 1;  // repeated
  std::vector<Node> parts;

  bool may_be_empty() const {
    const auto empty = [](const Node& part) { return part.may_be_empty(); };
    switch (kind) {
      case Kind::set: return false;
      case Kind::expect:
      case Kind::expect_not: return true;
      case Kind::sequence: return std::all_of(parts.begin(), parts.end(), empty);
      case Kind::alternatives: return std::any_of(parts.begin(), parts.end(), empty);
      case Kind::repeated: return least == 0 || parts[0].may_be_empty();
    }
    return true;
  }
};

// Everything that is not known here to mean what it says is Unsupported.
class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {}

  Node run() {
    Node node = alternatives(false, 0);
    if (!at_end()) throw Unsupported();
    return node;
  }
  std::vector<std::string> take_sets() { return std::move(sets_); }

 private:
  bool at_end() const { return at_ == pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    at_ += text.size();
    return true;
  }

  Node alternatives(bool caseless, int depth) {
    if (depth > most_depth) throw Unsupported();
    Node node{Node::Kind::alternatives};
    do {
      Node sequence{Node::Kind::sequence};
      while (!at_end() && !next_is("|") && !next_is(")")) sequence.parts.push_back(repeated(caseless, depth));
      node.parts.push_back(std::move(sequence));
    } while (take("|"));
    return node;
  }

  Node repeated(bool caseless, int depth) {
    Node node{Node::Kind::repeated};
    node.parts.push_back(element(caseless, depth));
    if (take("?")) {
      node.least = 0;
    } else if (take("*")) {
      node.least = 0, node.most = without_end;
    } else if (take("+")) {
      node.most = without_end;
    } else if (take("{")) {
      node.least = number();
      node.most = !take(",") ? node.least : next_is("}") ? without_end : number();
      if (!take("}") || node.most < node.least) throw Unsupported();
    } else {
      return std::move(node.parts[0]);
    }
    // Lazy and possessive ones; an empty text repeated.
    if (next_is("?") || next_is("+") || next_is("*") || next_is("{") || node.parts[0].may_be_empty())
      throw Unsupported();
    return node;
  }

  uint32_t number() {
    uint32_t value = 0;
    const char* const begin = pattern_.data() + at_;
    const auto [end, error] = std::from_chars(begin, pattern_.data() + pattern_.size(), value);
    if (error != std::errc{} || value > most_steps) throw Unsupported();
    at_ += static_cast<size_t>(end - begin);
    return value;
  }

  Node element(bool caseless, int depth) {
    if (!next_is("(")) return {Node::Kind::set, set(caseless)};
    Node node{Node::Kind::sequence};
    if (next_is("(?=") || next_is("(?!")) {
      node = {next_is("(?=") ? Node::Kind::expect : Node::Kind::expect_not};
      at_ += 3;
      node.set = set(caseless);
    } else if (take("(?:")) {
      node = alternatives(caseless, depth + 1);
    } else if (take("(?i:")) {
      node = alternatives(true, depth + 1);
    } else if (next_is("(?") || next_is("(*")) {
      throw Unsupported();
    } else {
      take("(");
      node = alternatives(caseless, depth + 1);
    }
    if (!take(")")) throw Unsupported();
    return node;
  }

  // One character's pattern; sets that are written the same are one.
  uint32_t set(bool caseless) {
    const size_t begin = at_;
    skip_set();
    const std::string text(pattern_.substr(begin, at_ - begin));
    const std::string pattern = caseless ? "(?i)" + text : text;
    const auto known = std::find(sets_.begin(), sets_.end(), pattern);
    const auto index = static_cast<uint32_t>(known - sets_.begin());
    if (known != sets_.end()) return index;
    if (sets_.size() == CharacterSets::most) throw Unsupported();
    sets_.push_back(pattern);
    return index;
  }

  void skip_set() {
    if (at_end()) throw Unsupported();
    if (next_is("[")) return skip_class();
    if (next_is("\\")) return skip_escape();
    constexpr std::string_view others = "^$*+?{()|";
    if (others.find(pattern_[at_]) != std::string_view::npos) throw Unsupported();
    at_ = std::min(pattern_.size(), at_ + code_point_length(pattern_[at_]));
  }

  void skip_class() {
    take("[");
    take("^");
    take("]");
    while (!take("]")) {
      if (at_end() || next_is("[:") || next_is("[.") || next_is("[=")) throw Unsupported();
      next_is("\\") ? skip_escape() : void(++at_);
    }
  }

  void skip_escape() {
    take("\\");
    if (at_end()) throw Unsupported();
    const char kind = pattern_[at_++];
    constexpr std::string_view one_character = "sSdDwWhHvVrntfea";
    constexpr std::string_view punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ";
    if ((kind == 'p' || kind == 'P' || kind == 'x') && next_is("{")) {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) throw Unsupported();
      at_ = end + 1;
    } else if (kind == 'x') {
      for (int digits = 0; digits < 2 && !at_end() && is_hexadecimal(pattern_[at_]); ++digits) ++at_;
    } else if (one_character.find(kind) == std::string_view::npos && punctuation.find(kind) == std::string_view::npos) {
      throw Unsupported();
    }
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::vector<std::string> sets_;
};

// From the end to the start: every step knows what comes after it.
class Steps {
 public:
  uint32_t match() { return add({PatternStep::Kind::match}); }

  uint32_t compile(const Node& node, uint32_t next) {
    switch (node.kind) {
      case Node::Kind::set: return add({PatternStep::Kind::character, node.set, next});
      case Node::Kind::expect: return add({PatternStep::Kind::expect, node.set, next});
      case Node::Kind::expect_not: return add({PatternStep::Kind::expect_not, node.set, next});
      case Node::Kind::sequence:
        for (auto part = node.parts.rbegin(); part != node.parts.rend(); ++part) next = compile(*part, next);
        return next;
      case Node::Kind::alternatives: {
        uint32_t entry = compile(node.parts.back(), next);
        for (auto part = node.parts.rbegin() + 1; part != node.parts.rend(); ++part)
          entry = add({PatternStep::Kind::fork, 0, compile(*part, next), entry});
        return entry;
      }
      case Node::Kind::repeated: return repeated(node, next);
    }
    return next;
  }

  std::vector<PatternStep> take() { return std::move(steps_); }

 private:
  uint32_t add(PatternStep step) {
    if (steps_.size() == most_steps) throw Unsupported();
    steps_.push_back(step);
    return static_cast<uint32_t>(steps_.size() - 1);
  }

  uint32_t repeated(const Node& node, uint32_t next) {
    const Node& part = node.parts[0];
    uint32_t entry = next;
    if (node.most == without_end) {
      entry = add({PatternStep::Kind::fork, 0, 0, next});
      const uint32_t body = compile(part, entry);
      steps_[entry].next = body;
    } else {
      for (uint32_t i = node.least; i < node.most; ++i)
        entry = add({PatternStep::Kind::fork, 0, compile(part, entry), next});
    }
    for (uint32_t i = 0; i < node.least; ++i) entry = compile(part, entry);
    return entry;
  }

  std::vector<PatternStep> steps_;
};

}  // namespace

std::optional<PatternProgram> pattern_program(std::string_view pattern) {
  try {
    Parser parser(pattern);
    const Node root = parser.run();
    if (root.may_be_empty()) return std::nullopt;
    Steps steps;
    PatternProgram program;
    program.start = steps.compile(root, steps.match());
    program.steps = steps.take();
    program.sets = parser.take_sets();
    return program;
  } catch (const Unsupported&) {
    return std::nullopt;
  }
}

}  // namespace lathe::data
