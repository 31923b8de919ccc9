#include "nn/weights/weight_rows.h"

#include <algorithm>
#include <vector>

#include "core/thread_pool.h"

namespace lathe::nn {

void stream_rows(const WeightRows& weight, int64_t row_bytes,
                 const std::function<void(const float* rows, int64_t count, std::byte* out)>& convert,
                 const std::function<void(const std::byte* bytes, int64_t count)>& write) {
  constexpr int64_t piece_elements = int64_t{4} << 20;
  const int64_t rows = weight.rows(), columns = weight.columns();
  const int64_t piece_rows = std::clamp<int64_t>(piece_elements / std::max<int64_t>(columns, 1), 1, rows);
  std::vector<float> values(static_cast<size_t>(piece_rows * columns));
  std::vector<std::byte> bytes(static_cast<size_t>(piece_rows * row_bytes));
  for (int64_t first = 0; first < rows; first += piece_rows) {
    const int64_t count = std::min(piece_rows, rows - first);
    constexpr int64_t rows_per_task = 16;
    parallel_for(count, rows_per_task, [&](int64_t begin, int64_t end) {
      weight.read(first + begin, end - begin, values.data() + begin * columns);
      convert(values.data() + begin * columns, end - begin, bytes.data() + begin * row_bytes);
    });
    write(bytes.data(), count * row_bytes);
  }
  if (weight.finished) weight.finished();
}

}  // namespace lathe::nn
