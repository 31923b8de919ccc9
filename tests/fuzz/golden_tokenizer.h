// The tokenizer of tests/golden/tokenizer/byte_level in folder(), for targets whose input is another file.
#pragma once

#include "tests/fuzz/input_file.h"
#include "tests/support/source_dir.h"

namespace lathe::fuzz {

inline void copy_golden_tokenizer() {
  static const bool copied =
      std::filesystem::copy_file(std::filesystem::path(source_dir) / "tests/golden/tokenizer/byte_level/tokenizer.json",
                                 folder() / "tokenizer.json");
  (void)copied;
}

}  // namespace lathe::fuzz
