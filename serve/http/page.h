// The page that / shows, and its parts: files of serve/http/page/, which are in the binary.
#pragma once

#include <string_view>

namespace lathe::http {

struct PageFile {
  std::string_view path;  // "/", "/page/chat.js"
  std::string_view content_type, text;
};

// Null where there is none of that path.
const PageFile* page_file(std::string_view path);

}  // namespace lathe::http
