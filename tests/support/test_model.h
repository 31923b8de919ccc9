// The real model that some tests run on: SmolLM2-135M-Instruct, which scripts/fetch-model puts into the cache.
#pragma once

#include <cstdlib>
#include <filesystem>

#include "core/error.h"

namespace lathe::testing {

inline std::filesystem::path test_model() {
  const char *given = std::getenv("LATHE_TEST_MODEL"), *cache = std::getenv("XDG_CACHE_HOME"),
             *home = std::getenv("HOME");
  const std::filesystem::path path =
      given ? std::filesystem::path(given)
            : (cache ? std::filesystem::path(cache) : std::filesystem::path(home ? home : ".") / ".cache") /
                  "lathe/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path))
    throw ResourceError(path.string() + " is missing: run scripts/fetch-model, or set LATHE_TEST_MODEL to the file");
  return path;
}

}  // namespace lathe::testing
