// One run at a time in an output_dir.
#pragma once

#include <filesystem>

namespace lathe::train {

// Holds `.run.lock` in the folder with flock: the kernel lets go of it however the process ends, so that nothing is
// left to clean up after kill -9. A file system without locks is taken without one.
class RunLock {
 public:
  // ConfigError (output_dir) with the folder and the process where a run is going on in it; ResourceError where the
  // file cannot be made.
  explicit RunLock(const std::filesystem::path& output_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace lathe::train
