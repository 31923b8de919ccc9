// A shared library that is loaded when it is first needed. lathe-model links neither libcurl nor libcrypto: with the
// two dozen libraries that they pull in they would lengthen every start from 5 to 12 ms, and few starts fetch.
#pragma once

#include <string>

namespace lathe::hub {

class LoadedLibrary {
 public:
  // ResourceError names the file and the package that has it.
  LoadedLibrary(const char* file, const char* debian_package);

  // symbol<decltype(curl_easy_init)>("curl_easy_init")
  template <class Function>
  Function* symbol(const char* name) const {
    return reinterpret_cast<Function*>(address(name));
  }

 private:
  void* address(const char* name) const;
  std::string file_;
  void* handle_;
};

}  // namespace lathe::hub
