// NFC (Unicode Standard Annex 15), where most of a text needs none of it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace lathe::data {

// Whether a text may be cut before c, and c stays itself in NFC unless what follows combines with it: its combining
// class is 0, nothing before it takes it in, and it is composed. Of the characters for which that holds those that
// texts are made of are known here; false for all others.
bool stays_in_nfc(char32_t c);

// `text` with normal_form() of its stretches of other characters, each from the character that they may combine with.
std::string compose_text(std::string_view text, const std::function<std::string(std::string_view)>& normal_form);

}  // namespace lathe::data
