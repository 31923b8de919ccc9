// JSON files that people hand over, read within bounds: whatever a file holds, the answer is a value or a FormatError
// with its place. Nesting ends at 100 levels, and an object of many keys costs time linear in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe {

inline constexpr int max_json_nesting = 100;

enum class RepeatedKeys { last_counts, refused };
// Integers that 64 bits cannot hold: refused where a value may become text, whose digits count.
enum class LargeIntegers { refused, as_doubles };

// Keys keep the file's order; where one comes twice its last value counts, or it is a FormatError. `file` is for
// errors. FormatError: no JSON, invalid UTF-8, too deep, a number that no double holds (1e400), a large integer
// (123456789012345678901).
nlohmann::ordered_json parse_json(std::string_view text, const std::string& file,
                                  RepeatedKeys repeated = RepeatedKeys::last_counts,
                                  LargeIntegers large = LargeIntegers::refused);

// The same of a file of settings, with or without a byte order mark. Large integers are doubles: transformers writes
// 1000000000000000019884624838656, which is 1e30, for a tokenizer's model_max_length without a limit. ResourceError
// when it cannot be opened.
nlohmann::ordered_json read_json_file(const std::filesystem::path& path);

// An object of these members; where a key comes twice the last value counts, in the first one's place.
nlohmann::ordered_json json_object(std::vector<std::pair<std::string, nlohmann::ordered_json>> members);

// Of a file that this program wrote: a member of an object, and the same as a list, a text, a truth. FormatError that
// names the key where it is missing or of another kind.
const nlohmann::ordered_json& json_member(const nlohmann::ordered_json& object, const std::string& key,
                                          const std::string& file);
const nlohmann::ordered_json& json_list(const nlohmann::ordered_json& object, const std::string& key,
                                        const std::string& file);
std::string json_text(const nlohmann::ordered_json& object, const std::string& key, const std::string& file);
bool json_truth(const nlohmann::ordered_json& object, const std::string& key, const std::string& file);

// The value as an integer from `least` to `greatest`: 8 and 8.0 are 8, anything else (8.9, "8", true, 2^40 where 32
// bits are meant) is a FormatError that names `key` and shows what was found.
int64_t json_integer(const nlohmann::ordered_json& value, const std::string& key, int64_t least, int64_t greatest,
                     const std::string& file);
// A finite number as a double.
double json_number(const nlohmann::ordered_json& value, const std::string& key, const std::string& file);

// The value's text for a message: at most 60 bytes, cut at a character, whatever the value holds.
std::string json_excerpt(const nlohmann::ordered_json& value);

}  // namespace lathe
