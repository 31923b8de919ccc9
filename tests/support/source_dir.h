// The tree that the tests were built from. One source alone is compiled with its path, so that all other objects are
// the same in every clone, and ccache has them.
#pragma once

namespace lathe {

extern const char* const source_dir;

}  // namespace lathe
