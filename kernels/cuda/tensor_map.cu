#include "kernels/cuda/tensor_map.h"

#include <string>

#include "core/error.h"
#include "kernels/cuda/launch.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

const char* why_no_tensor_map(const TensorMapArgs& args) {
  if (args.rows < 1 || args.columns < 1 || args.rows > 0x7fffffff || args.columns > 0x7fffffff)
    return "a matrix has 1 to 2^31 − 1 rows and columns";
  if (reinterpret_cast<uintptr_t>(args.data) % 16 != 0) return "the matrix does not begin at a multiple of 16 bytes";
  if (args.row_stride % 8 != 0) return "the rows do not lie a multiple of 16 bytes apart";
  if (args.row_stride < args.columns || args.row_stride >= int64_t{1} << 39)
    return "the rows overlap, or lie 2^40 bytes apart or more";
  if (args.matrices < 0 || args.matrices > 0x7fffffff ||
      (args.matrices > 0 && args.rows * args.row_stride >= int64_t{1} << 39))
    return "a map has up to 2^31 − 1 matrices, less than 2^40 bytes apart";
  if (args.box_rows < 8 || args.box_rows > 256 || args.box_rows % 8 != 0) return "a box has 8 to 256 rows, by eights";
  if (args.box_columns != 64) return "a box has 64 columns, the 128 bytes of the swizzle";
  return "";
}

#if LATHE_SIMT

namespace {

TensorMap encode(const TensorMapArgs& args) {
  return {.data = args.data,
          .rows = args.rows,
          .columns = args.columns,
          .row_bytes = 2 * args.row_stride,
          .box_rows = args.box_rows,
          .box_columns = args.box_columns,
          .matrices = args.matrices};
}

}  // namespace

#else

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver is found when it is first needed: programs start on machines without one.
Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
        "looking for cuTensorMapEncodeTiled");
#else
  check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result),
        "looking for cuTensorMapEncodeTiled");
#endif
  if (result != cudaDriverEntryPointSuccess || found == nullptr)
    throw Error("the CUDA driver has no cuTensorMapEncodeTiled: install a driver of CUDA 12 or newer");
  return reinterpret_cast<Encode>(found);
}

TensorMap encode(const TensorMapArgs& args) {
  static const Encode function = find_encode();
  TensorMap map;
  const cuuint32_t rank = args.matrices > 0 ? 3 : 2;
  const auto row_bytes = static_cast<cuuint64_t>(args.row_stride) * 2;
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(args.columns), static_cast<cuuint64_t>(args.rows),
                                 static_cast<cuuint64_t>(args.matrices)};
  const cuuint64_t strides[2] = {row_bytes, row_bytes * static_cast<cuuint64_t>(args.rows)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(args.box_columns), static_cast<cuuint32_t>(args.box_rows), 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  // Elements are only moved: f16 has the bits of bf16's, and zeros are alike.
  const CUresult result = function(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void*>(args.data), extents,
                                   strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error("the CUDA driver refuses the tensor map of a matrix of " + std::to_string(args.rows) + " × " +
                std::to_string(args.columns) + ", its rows " + std::to_string(args.row_stride) +
                " elements apart: error " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace

#endif

TensorMap make_tensor_map(const TensorMapArgs& args) {
  const std::string reason = why_no_tensor_map(args);
  if (!reason.empty()) throw Error("no tensor map: " + reason);
  return encode(args);
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
