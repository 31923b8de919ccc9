#include "core/hub/loaded_library.h"

#include <dlfcn.h>

#include "core/error.h"

namespace lathe::hub {

LoadedLibrary::LoadedLibrary(const char* file, const char* debian_package)
    : file_(file), handle_(::dlopen(file, RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ != nullptr) return;
  const char* reason = ::dlerror();
  throw ResourceError(std::string("fetching needs ") + file + ", which cannot be loaded (" +
                      (reason == nullptr ? "no reason given" : reason) + "): install " + debian_package);
}

void* LoadedLibrary::address(const char* name) const {
  void* found = ::dlsym(handle_, name);
  if (found == nullptr) throw ResourceError(file_ + " has no function " + name + ": install a newer one");
  return found;
}

}  // namespace lathe::hub
