// What a MODEL of the command line stands for on this machine.
#pragma once

#include <filesystem>

namespace lathe::nn {

// A file or a folder that is there: itself. Else ORG/NAME[@REVISION], a repository of a Hub: its snapshot in the cache
// that huggingface_hub shares (core/hub/cache.h), or the GGUF file in it where that is the only weight file. Nothing is
// fetched. ConfigError for what is neither, with the command that fetches it.
std::filesystem::path resolve_model_path(const std::filesystem::path& model);

}  // namespace lathe::nn
