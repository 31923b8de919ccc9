#include "tests/support/source_dir.h"

namespace lathe {

const char* const source_dir = LATHE_SOURCE_DIR;

}  // namespace lathe
