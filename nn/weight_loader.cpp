#include "nn/weight_loader.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"

namespace lathe::nn {
namespace {

// Rows that one thread dequantises and packs at a time: a multiple of every panel's width, and few enough that their
// f32 values stay in the second-level cache (64 × 1536 × 4 bytes).
constexpr int64_t rows_per_task = 64;

}  // namespace

bool stays_in_blocks(const WeightInfo& weight, DType dtype, StoredBlockUse blocks) {
  return blocks == StoredBlockUse::keep && dtype != DType::f64 && weight.shape.rank() == 2 && weight.has_blocks &&
         kernels::ggml_format(weight.stored_type);
}

bool stays_bf16(const WeightInfo& weight, DType dtype, Device device, StoredBlockUse blocks) {
  return blocks == StoredBlockUse::keep && device.kind == DeviceKind::cpu && dtype == DType::f32 &&
         weight.stored_type == "BF16" && weight.shape.rank() == 2 && weight.shape[1] % 2 == 0;
}

autograd::LinearWeight WeightLoader::matrix(const std::string& name, int64_t rows, int64_t columns) {
  expect(name, {rows, columns});
  if (parameters_ != nullptr || dtype_ == DType::f64) {
    Tensor master = dense(name, {rows, columns});
    if (parameters_ == nullptr) return autograd::LinearWeight(std::move(master));
    parameters_->push_back(Parameter::make(name, std::move(master), dtype_));
    return autograd::LinearWeight(parameters_->back().leaf);
  }
  const WeightInfo& stored = *source_.find(name);
  if (stays_in_blocks(stored, dtype_, blocks_)) {
    const StoredBlocks found = source_.blocks(name).value();
    const kernels::GgmlRows blocks{found.format, columns, found.rows};
    if (device_.kind == DeviceKind::cpu) return kernels::GgmlWeight::pack(blocks, dtype_);
    return kernels::GgmlWeight::send(blocks, dtype_, device_, upload_);
  }
  auto packed = stays_bf16(stored, dtype_, device_, blocks_)
                    ? kernels::PackedWeight::allocate_widened(rows, columns)
                    : kernels::PackedWeight::allocate(rows, columns, dtype_, MemoryTag::weights, device_);
  if (device_.kind != DeviceKind::cpu) {
    send_rows(name, packed.panels());
    return autograd::LinearWeight(std::move(packed));
  }
  parallel_for(rows, rows_per_task, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>((end - begin) * columns));
    source_.read_rows(name, begin, end - begin, values.data());
    packed.pack_rows(begin, end - begin, values.data());
  });
  return autograd::LinearWeight(std::move(packed));
}

autograd::LinearWeight WeightLoader::linear(const std::string& name, int64_t rows, int64_t columns,
                                            const std::optional<Quantization>& quantization) {
  expect(name, {rows, columns});
  if (auto codes = source_.codes(name)) {
    if (parameters_ != nullptr)
      throw ConfigError("use_peft",
                        name + " is stored as codes, which cannot be trained: train an adapter beside them");
    return kernels::QuantizedWeight::pack(on_device(std::move(*codes)));
  }
  // int8 blocks lie within a row, nf4's may go on into the next.
  if (!quantization || !kernels::QuantizedWeight::suits(columns, nf4_block)) return matrix(name, rows, columns);
  const Tensor values = dense(name, {rows, columns}, MemoryTag::workspace);
  if (quantization->format == kernels::QuantizedFormat::int8)
    return kernels::QuantizedWeight::quantize(values, kernels::QuantizedFormat::int8);
  // In panels the codes are a copy.
  const MemoryTag tag = device_.kind == DeviceKind::cpu ? MemoryTag::workspace : MemoryTag::weights;
  return kernels::QuantizedWeight::pack(kernels::quantize_nf4(values, nf4_block, quantization->scales, tag));
}

autograd::Variable WeightLoader::vector(const std::string& name, int64_t size, double offset) {
  return tensor(name, {size}, offset);
}

autograd::Variable WeightLoader::exact_vector(const std::string& name, int64_t size) {
  expect(name, {size});
  return held(name, dense(name, {size}), dtype_ == DType::f64 ? DType::f64 : DType::f32, 0);
}

Tensor WeightLoader::exact_constant(const std::string& name, int64_t size) {
  expect(name, {size});
  return dense(name, {size});
}

autograd::Variable WeightLoader::tensor(const std::string& name, const Shape& shape, double offset) {
  expect(name, shape);
  Tensor master = dense(name, shape);
  if (offset != 0) {
    const Tensor ones = Tensor::empty(master.shape(), master.dtype(), master.device(), MemoryTag::weights);
    kernels::fill(ones, 1.0);
    kernels::add(master, master, ones, offset);
  }
  return held(name, std::move(master), dtype_, offset);
}

autograd::Variable WeightLoader::held(const std::string& name, Tensor master, DType dtype, double offset) {
  if (parameters_ == nullptr) {
    const MemoryTagScope tag(MemoryTag::weights);
    return autograd::Variable(kernels::cast(master, dtype));
  }
  parameters_->push_back(Parameter::make(name, std::move(master), dtype));
  parameters_->back().stored_offset = offset;
  return parameters_->back().leaf;
}

void WeightLoader::check_all_used() const {
  std::string left;
  int count = 0;
  for (const WeightInfo& info : source_.weights())
    if (!used_.contains(info.name) && ++count <= 3) left += (left.empty() ? "" : ", ") + info.name;
  if (count > 0)
    throw FormatError("the model's weights", -1,
                      std::to_string(count) + " of them have no place in this architecture: " + left +
                          (count > 3 ? ", …" : "") + "; the config and the weights do not belong together");
}

void WeightLoader::expect(const std::string& name, const Shape& shape) {
  const WeightInfo* info = source_.find(name);
  if (info == nullptr) throw FormatError("the model's weights", -1, name + " is missing");
  if (info->shape != shape)
    throw FormatError("the model's weights", -1,
                      name + ": expected shape " + to_string(shape) + ", found " + to_string(info->shape));
  used_.insert(name);
}

kernels::StoredWeight WeightLoader::on_device(kernels::StoredWeight codes) const {
  if (device_.kind == DeviceKind::cpu) return codes;
  const auto move = [&](Tensor& tensor) {
    if (tensor.defined()) tensor = kernels::moved(tensor, device_, MemoryTag::weights);
  };
  if (auto* nf4 = std::get_if<kernels::Nf4Weight>(&codes)) {
    for (Tensor* tensor : {&nf4->codes, &nf4->absmax, &nf4->absmax_codes, &nf4->nested_absmax, &nf4->offset})
      move(*tensor);
  } else {
    auto& int8 = std::get<kernels::Int8Weight>(codes);
    move(int8.codes);
    move(int8.scales);
  }
  return codes;
}

// On the device in f32, on the cpu in f64 for f64.
Tensor WeightLoader::dense(const std::string& name, const Shape& shape, MemoryTag memory_tag) {
  Tensor values = Tensor::empty(shape, DType::f32, device_, memory_tag);
  if (device_.kind != DeviceKind::cpu) {
    send_rows(name, values);
    upload_.publish();  // what follows may cast it
    return values;
  }
  fill_rows(name, 0, values);
  if (dtype_ != DType::f64) return values;
  const MemoryTagScope tag(memory_tag);
  return kernels::cast(values, DType::f64);
}

// rows f32 [n, columns] (or a vector), contiguous, on the cpu.
void WeightLoader::fill_rows(const std::string& name, int64_t first_row, const Tensor& rows) const {
  const int64_t columns = rows.dim(-1);
  float* const out = rows.data<float>();
  parallel_for(rows.numel() / columns, rows_per_task, [&](int64_t begin, int64_t end) {
    source_.read_rows(name, first_row + begin, end - begin, out + begin * columns);
  });
}

// `to` [rows, stored columns] (or a vector) on the device: the file's columns, rounded to its dtype, then zeros.
void WeightLoader::send_rows(const std::string& name, const Tensor& to) {
  const int64_t columns = source_.find(name)->shape[-1], stored = to.dim(-1), row_bytes = stored * size_of(to.dtype());
  upload_.write(to.raw(), to.nbytes(), row_bytes, [&](char* buffer, int64_t first, int64_t bytes) {
    const int64_t rows = bytes / row_bytes;
    const Tensor values = Tensor::empty({rows, columns}, DType::f32, {}, MemoryTag::workspace);
    fill_rows(name, first / row_bytes, values);
    if (stored != columns) std::memset(buffer, 0, static_cast<size_t>(bytes));
    const Tensor staged =
        Tensor::from_storage(Storage::wrap(buffer, bytes, {}, nullptr), 0, {rows, stored}, to.dtype());
    kernels::copy(staged.slice(1, 0, columns), values);
  });
}

}  // namespace lathe::nn
