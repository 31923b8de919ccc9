#include "core/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "core/error.h"

namespace lathe {
namespace {

constexpr size_t most_pattern_bytes = 1 << 16;
constexpr uint32_t most_groups = 32;  // that match_group can see

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

// What one thread needs to run matches.
struct MatchScratch {
  pcre2_match_data* data = pcre2_match_data_create(most_groups, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, 16 * 1024 * 1024, nullptr);
  MatchScratch() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~MatchScratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

MatchScratch& scratch_of_thread() {
  thread_local MatchScratch scratch;
  return scratch;
}

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  std::string where;
  uint32_t steps = 0;
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where, const RegexOptions& options)
    : compiled_(std::make_unique<Compiled>()) {
  compiled_->where = where;
  compiled_->steps = options.steps;
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context, most_pattern_bytes);
  compiled_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | (options.multiline ? PCRE2_MULTILINE : 0), &error,
                    &offset, context);
  pcre2_compile_context_free(context);
  if (!compiled_->code) {
    constexpr size_t shown = 100;
    const std::string excerpt = pattern.size() > shown ? pattern.substr(0, shown) + "…" : pattern;
    throw ConfigError(where, "the pattern '" + excerpt + "' cannot be compiled: " + pcre2_message(error) +
                                 " (at byte " + std::to_string(offset) + ")");
  }
  // Where no machine code can be made, the interpreter gives the same matches.
  if (options.machine_code) pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

int Regex::run(std::string_view text, size_t from, uint32_t flags) const {
  MatchScratch& scratch = scratch_of_thread();
  pcre2_set_match_limit(scratch.context, compiled_->steps);
  const int result = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK | flags, scratch.data, scratch.context);
  if (result < 0 && result != PCRE2_ERROR_NOMATCH) {
    throw ConfigError(compiled_->where, "matching the pattern failed near byte " + std::to_string(from) +
                                            " of the text: " + pcre2_message(result));
  }
  return result;
}

bool Regex::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  if (run(text, from, 0) == PCRE2_ERROR_NOMATCH) return false;
  const PCRE2_SIZE* where = pcre2_get_ovector_pointer(scratch_of_thread().data);
  begin = where[0];
  end = where[1];
  return true;
}

bool Regex::matches_all(std::string_view text) const {
  return run(text, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED) != PCRE2_ERROR_NOMATCH;
}

bool Regex::match_group(std::string_view text, const char* group, std::string& found) const {
  if (run(text, 0, PCRE2_ANCHORED) == PCRE2_ERROR_NOMATCH) return false;
  const int number = pcre2_substring_number_from_name(compiled_->code, reinterpret_cast<PCRE2_SPTR>(group));
  if (number < 0 || number >= static_cast<int>(most_groups)) return false;
  const PCRE2_SIZE* where = pcre2_get_ovector_pointer(scratch_of_thread().data) + 2 * number;
  if (where[0] == PCRE2_UNSET) return false;
  found = text.substr(where[0], where[1] - where[0]);
  return true;
}

std::string python_pattern(std::string_view pattern) {
  std::string rewritten;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char kind = pattern[++i];
      rewritten += c;
      rewritten += kind == 'Z' && !in_class ? 'z' : kind;
      continue;
    }
    if (c == '[' && !in_class) {
      in_class = true;
      rewritten += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') rewritten += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') rewritten += "\\" + std::string(1, pattern[++i]);
      continue;
    }
    if (c == '[') rewritten += '\\';  // Python has no classes within classes, PCRE2 reads [:alpha:]
    if (c == ']') in_class = false;
    rewritten += c;
    if (c == '{' && !in_class && i + 1 < pattern.size() && pattern[i + 1] == ',') rewritten += '0';
  }
  return rewritten;
}

}  // namespace lathe
