// Text of unknown origin on its way to a person's terminal.
#pragma once

#include <string>
#include <string_view>

namespace lathe {

// A terminal obeys control characters: a file's string could clear the screen or write into other programs. The C0
// set but newline and tab, DEL, the C1 set (U+0080 … U+009F) and bytes that are no UTF-8 become "\x1b", byte for byte;
// everything else stays. What has no such byte, a result of printable() too, is returned as it is.
std::string printable(std::string_view text);

}  // namespace lathe
