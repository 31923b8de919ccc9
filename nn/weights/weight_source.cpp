#include "nn/weights/weight_source.h"

#include <xxhash.h>

#include <algorithm>
#include <map>

#include "core/thread_pool.h"
#include "kernels/copy/copy.h"

namespace lathe::nn {

Tensor read_weight(const WeightSource& source, const WeightInfo& info, DType dtype) {
  constexpr int64_t rows_per_task = 64;
  const int64_t columns = info.shape.rank() > 0 ? info.shape[-1] : 1;
  const int64_t rows = info.shape.rank() > 1 ? info.shape.numel() / std::max<int64_t>(columns, 1) : 1;
  const MemoryTagScope tag(MemoryTag::workspace);
  const Tensor values = Tensor::empty(info.shape, DType::f32);
  parallel_for(rows, rows_per_task, [&](int64_t begin, int64_t end) {
    source.read_rows(info.name, begin, end - begin, values.data<float>() + begin * columns);
  });
  return dtype == DType::f32 ? values : kernels::cast(values, dtype);
}

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
