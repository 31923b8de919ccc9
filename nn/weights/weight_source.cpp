#include "nn/weights/weight_source.h"

#include <xxhash.h>

#include <algorithm>
#include <map>

namespace lathe::nn {

uint64_t model_fingerprint(const WeightSource& weights) {
  std::map<std::string, const WeightInfo*> by_name;  // a file's order is no matter
  for (const WeightInfo& info : weights.weights()) by_name[info.name] = &info;
  uint64_t hash = 0;
  std::vector<float> row;
  for (const auto& [name, info] : by_name) {
    hash = XXH64(name.data(), name.size(), hash);
    const auto dims = info->shape.dims();
    hash = XXH64(dims.data(), dims.size_bytes(), hash);
    const int64_t rows = info->shape.rank() > 1 ? info->shape[0] : 1;
    row.resize(static_cast<size_t>(info->shape.numel() / std::max<int64_t>(rows, 1)));
    for (const int64_t at : {int64_t{0}, rows / 2}) {
      weights.read_rows(name, at, 1, row.data());
      hash = XXH64(row.data(), row.size() * sizeof(float), hash);
    }
  }
  return hash;
}

}  // namespace lathe::nn
