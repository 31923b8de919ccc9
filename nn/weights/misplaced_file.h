// What people have in place of a model's files, and what to do about it: ends of error messages.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lathe::nn {

// A file that is no weight file, by its first bytes: a git-lfs pointer, a web page, an archive; "" for anything else.
std::string what_it_is_instead(std::string_view text);

// A directory that lacks the files of a model or an adapter, by what it holds: the weights in a pickle, GGUF files, an
// adapter, a model; "" for anything else.
std::string what_it_holds_instead(const std::filesystem::path& directory);

}  // namespace lathe::nn
