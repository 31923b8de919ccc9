// Names a stretch of the host's time for NVIDIA's profilers (NVTX). Without one attached it costs nothing worth
// measuring, and without CUDA in the build nothing at all.
#pragma once

namespace lathe::kernels {

class ProfilerRange {
 public:
  explicit ProfilerRange(const char* name);
  ~ProfilerRange();
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;
};

}  // namespace lathe::kernels
