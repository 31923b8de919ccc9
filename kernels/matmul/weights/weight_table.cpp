#include "kernels/matmul/weights/weight_table.h"

#include <algorithm>
#include <cstring>

#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"
#include "kernels/matmul/cuda/grouped.h"
#include "kernels/matmul/device.h"
#include "kernels/matmul/operands.h"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"

namespace lathe::kernels {
namespace {

bool is_dense(const Weight& weight) { return weight.dense() || weight.packed(); }

bool rows_at_vectors(const ProductMatrix& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && matrix.stride * size_of(matrix.dtype) % 16 == 0;
}

// Whether one launch reads both: they differ in where they lie alone.
bool alike(const Weight& a, const Weight& b) {
  if (a.rows() != b.rows() || a.columns() != b.columns() || a.device() != b.device()) return false;
  if (is_dense(a) && is_dense(b)) return a.dtype() == b.dtype() && product_matrix(a).stride == product_matrix(b).stride;
  if (a.ggml() && b.ggml()) return a.ggml()->format() == b.ggml()->format();
  const QuantizedWeight *codes = a.quantized(), *others = b.quantized();
  if (codes == nullptr || others == nullptr || codes->format() != others->format()) return false;
  const auto* nf4 = std::get_if<Nf4Weight>(&codes->stored());
  if (nf4 == nullptr) return true;
  const Nf4Weight& other = std::get<Nf4Weight>(others->stored());
  return nf4->block_size == other.block_size && nf4->nested() == other.nested();
}

bool has_body(const Weight& weight, DType dtype) {
  if (is_dense(weight)) {
    const ProductMatrix matrix = product_matrix(weight);
    return weight.dtype() == dtype && rows_at_vectors(matrix);
  }
  return weight.ggml() || device::suits_codes(*weight.quantized());
}

// The place of one in its format's table.
struct PlaceBytes {
  char bytes[sizeof(Nf4Place)];
  size_t count;
};
template <class Place>
PlaceBytes bytes_of(const Place& place) {
  static_assert(sizeof(Place) <= sizeof(PlaceBytes::bytes));
  PlaceBytes result{{}, sizeof place};
  std::memcpy(result.bytes, &place, sizeof place);
  return result;
}
PlaceBytes place_of(const Weight& weight) {
  if (is_dense(weight)) return bytes_of(DensePlace{product_matrix(weight).data});
  if (const GgmlWeight* ggml = weight.ggml()) return bytes_of(GgmlPlace{ggml->panels().data<uint8_t>()});
  const QuantizedProductArgs args = device::with_codes({}, *weight.quantized());
  const auto* codes = static_cast<const uint8_t*>(args.codes);
  return args.format == QuantizedFormat::nf4 ? bytes_of(Nf4Place{codes, args.nf4_scales})
                                             : bytes_of(Int8Place{codes, args.int8_scales});
}

Tensor table_of(const std::vector<Weight>& weights) {
  const auto size = static_cast<int64_t>(place_of(weights[0]).count);
  const Tensor table = Tensor::empty({std::ssize(weights), size}, DType::u8);
  for (size_t i = 0; i < weights.size(); ++i)
    std::memcpy(table.data<uint8_t>() + static_cast<int64_t>(i) * size, place_of(weights[i]).bytes,
                static_cast<size_t>(size));
  return moved(table, weights[0].device(), MemoryTag::weights);
}

Tensor table_of(const std::vector<Tensor>& biases) {
  const Tensor table = Tensor::empty({std::ssize(biases)}, DType::i64);
  for (size_t i = 0; i < biases.size(); ++i)
    table.data<int64_t>()[i] = static_cast<int64_t>(reinterpret_cast<uintptr_t>(biases[i].raw()));
  return moved(table, biases[0].device(), MemoryTag::weights);
}

Tensor maps_of(const std::vector<Weight>& weights) {
  const Tensor maps = Tensor::zeros({std::ssize(weights), weight_map_bytes}, DType::u8);
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weight& weight = weights[i];
    bool made = false;
    with_device(weight.device(), [&]<DeviceKind kind>() {
      made = make_weight_map<kind>(maps.data<uint8_t>() + static_cast<int64_t>(i) * weight_map_bytes,
                                   product_matrix(weight), weight.rows(), weight.columns());
    });
    if (!made) return {};
  }
  return moved(maps, weights[0].device(), MemoryTag::weights);
}

}  // namespace

WeightTable WeightTable::of(std::vector<Weight> weights, std::vector<Tensor> biases, DType dtype) {
  WeightTable table;
  if (weights.empty() || (dtype != DType::bf16 && dtype != DType::f16)) return table;
  const Weight& first = weights[0];
  if (first.device().kind == DeviceKind::cpu || first.rows() == 0) return table;
  if (!std::ranges::all_of(weights,
                           [&](const Weight& weight) { return alike(first, weight) && has_body(weight, dtype); }))
    return table;
  if (!biases.empty() && (biases.size() != weights.size() || !std::ranges::all_of(biases, [&](const Tensor& bias) {
                            return bias.defined() && bias.dtype() == dtype && bias.device() == first.device();
                          })))
    return table;
  table.dtype_ = dtype;
  table.places_ = table_of(weights);
  if (!biases.empty()) table.bias_places_ = table_of(biases);
  if (is_dense(first)) table.maps_ = maps_of(weights);
  table.weights_ = std::move(weights);
  table.biases_ = std::move(biases);
  return table;
}

bool WeightTable::goes_with(const WeightTable& other) const {
  return defined() && other.defined() && dtype_ == other.dtype_ && weights_.size() == other.weights_.size() &&
         alike(first(), other.first());
}

}  // namespace lathe::kernels
