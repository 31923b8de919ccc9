#include "data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "core/error.h"

namespace lathe::data {
namespace {

// Oniguruma's \s: Unicode's White_Space. PCRE2's adds U+180E.
constexpr std::string_view white_space = R"(\t-\r\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Backtracking steps for one match. The tokenizers' own patterns need a few for each character of a word.
constexpr uint32_t match_limit = 50'000'000;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// What one thread needs to run matches.
struct MatchScratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr);
  MatchScratch() {
    pcre2_set_match_limit(context, match_limit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchScratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  std::string where;
  ~Compiled() { pcre2_code_free(code); }
};

std::string as_pcre2_pattern(std::string_view pattern) {
  std::string rewritten;
  int class_depth = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char kind = pattern[i + 1];
      if (kind == 's') {
        rewritten += class_depth ? std::string(white_space) : "[" + std::string(white_space) + "]";
      } else if (kind == 'S' && !class_depth) {
        rewritten += "[^" + std::string(white_space) + "]";
      } else {
        rewritten += c;
        rewritten += kind;
      }
      ++i;
      continue;
    }
    if (c == '[') {
      ++class_depth;
      // A ']' that comes first in a class is a character of it.
      rewritten += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') rewritten += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') rewritten += pattern[++i];
      continue;
    }
    if (c == ']' && class_depth) --class_depth;
    rewritten += c;
  }
  return rewritten;
}

Regex::Regex(const std::string& pattern, const std::string& where) : compiled_(std::make_unique<Compiled>()) {
  const std::string rewritten = as_pcre2_pattern(pattern);
  compiled_->where = where;
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rewritten.data()), rewritten.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!compiled_->code) {
    throw ConfigError(where, "the pattern '" + pattern + "' cannot be compiled: " + pcre2_message(error) +
                                 " (after '" + rewritten.substr(0, offset) + "')");
  }
  // Where no machine code can be made, the interpreter gives the same matches.
  pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

bool Regex::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  thread_local MatchScratch scratch;
  const int result = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw ConfigError(compiled_->where, "matching the pattern failed near byte " + std::to_string(from) +
                                            " of the text: " + pcre2_message(result));
  }
  const PCRE2_SIZE* where = pcre2_get_ovector_pointer(scratch.data);
  begin = where[0];
  end = where[1];
  return true;
}

}  // namespace lathe::data
