#include "train/grpo/rewards/answers.h"

#include <cctype>
#include <charconv>
#include <memory>

#include "core/error.h"
#include "core/regex.h"

namespace lathe::train {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr const char* space = " \t\r\n";
  const size_t first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t digits_at(std::string_view text, size_t at) {
  size_t count = 0;
  while (at + count < text.size() && is_digit(text[at + count])) ++count;
  return count;
}

// The number that begins at `at`, where a digit stands or a point before one, and where it ends. Commas count only
// between whole groups of three.
double number_at(std::string_view text, size_t at, bool negative, size_t& end) {
  std::string digits(negative ? "-" : "");
  size_t count = digits_at(text, at);
  digits += text.substr(at, count);
  end = at + count;
  if (count >= 1 && count <= 3) {
    while (end < text.size() && text[end] == ',' && digits_at(text, end + 1) == 3) {
      digits += text.substr(end + 1, 3);
      end += 4;
    }
  }
  if (end < text.size() && text[end] == '.' && (count = digits_at(text, end + 1)) > 0) {
    digits += text.substr(end, count + 1);
    end += count + 1;
  }
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    const size_t sign = end + 1 < text.size() && (text[end + 1] == '-' || text[end + 1] == '+') ? 1 : 0;
    count = digits_at(text, end + 1 + sign);
    if (count > 0) {
      digits += 'e';
      if (sign != 0 && text[end + 1] == '-') digits += '-';
      digits += text.substr(end + 1 + sign, count);
      end += 1 + sign + count;
    }
  }
  double value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

template <class Fits>
RewardFunction compare_with_column(std::string column, Fits fits) {
  return [column = std::move(column), fits](std::span<const ScoredCompletion> completions) {
    Rewards rewards;
    for (const ScoredCompletion& completion : completions) {
      const std::optional<std::string> answer = column_text(*completion.row, column);
      rewards.push_back(answer ? std::optional<double>(fits(completion, *answer) ? 1.0 : 0.0) : std::nullopt);
    }
    return rewards;
  };
}

}  // namespace

std::optional<double> last_number(std::string_view text) {
  std::optional<double> last;
  for (size_t at = 0; at < text.size();) {
    const bool begins = is_digit(text[at]) || (text[at] == '.' && digits_at(text, at + 1) > 0);
    if (!begins) {
      ++at;
      continue;
    }
    // "3-4" is a range or a difference, " -4" is negative.
    const bool negative =
        at > 0 && text[at - 1] == '-' && (at < 2 || std::isalnum(static_cast<unsigned char>(text[at - 2])) == 0);
    last = number_at(text, at, negative, at);
  }
  return last;
}

RewardFunction exact_answer_reward(std::string column) {
  return compare_with_column(std::move(column), [](const ScoredCompletion& completion, const std::string& answer) {
    return trimmed(completion.text) == trimmed(answer);
  });
}

RewardFunction number_reward(std::string column) {
  return compare_with_column(column, [column](const ScoredCompletion& completion, const std::string& answer) {
    const std::optional<double> expected = last_number(answer), found = last_number(completion.text);
    if (!expected)
      throw FormatError(where_of(*completion.row), -1,
                        "the reward 'number' expects a number in \"" + column + "\", found '" + answer.substr(0, 60) +
                            "'; leave the column out (or null) where the row has none");
    return found == expected;
  });
}

RewardFunction regex_reward(const std::string& pattern) {
  const auto regex = std::make_shared<const Regex>(pattern, "reward_regex");
  return [regex](std::span<const ScoredCompletion> completions) {
    Rewards rewards;
    for (const ScoredCompletion& completion : completions) {
      size_t begin = 0, end = 0;
      rewards.emplace_back(regex->find(completion.text, 0, begin, end) ? 1.0 : 0.0);
    }
    return rewards;
  };
}

}  // namespace lathe::train
