#include "programs/cli/messages.h"

#include <cstdio>
#include <string>

#include "core/printable.h"

namespace lathe::cli {

void print_note(std::string_view text) { std::fprintf(stderr, "%s\n", printable(text).c_str()); }
void print_warning(std::string_view sentence) { print_note("warning: " + std::string(sentence)); }
void print_error(std::string_view sentence) { print_note("error: " + std::string(sentence)); }

}  // namespace lathe::cli
