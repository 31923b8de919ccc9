// What programs say on standard error: every message goes through here, where control characters that come from files
// are shown instead of obeyed. Generated text goes to standard output as the model writes it, as llama.cpp's programs
// have it: a pipe must get its bytes.
#pragma once

#include <string_view>

namespace lathe::cli {

void print_note(std::string_view text);         // the text and a line end
void print_warning(std::string_view sentence);  // "warning: …"
void print_error(std::string_view sentence);    // "error: …"

}  // namespace lathe::cli
