#include "tests/support/operation_run.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/device_memory.h"

namespace lathe::testing {
namespace {

constexpr size_t guard_bytes = 256;

// simt opens its memory for every copy; many copies in a row go through one opening.
class ManyCopies {
 public:
  explicit ManyCopies(Device device) {
    if (device.kind == DeviceKind::simt) opening_.emplace();
  }

 private:
  std::optional<simt::HostAccess> opening_;
};

}  // namespace

int64_t BoundCase::padded_row(const Operand& operand) {
  return (operand.shape.rank() == 0 ? 1 : operand.shape[-1]) + operand.padding;
}

BoundCase::BoundCase(const Case& test_case, const Contents& contents, BindOptions options) : options_(options) {
  const ManyCopies copies(options.device);
  bind(test_case, [&](const Operand& operand, bool is_input) { add(operand, contents, is_input); });
}

std::unique_ptr<BoundCase> BoundCase::copy_of(const Case& test_case, const BoundCase& other) {
  std::unique_ptr<BoundCase> copy(new BoundCase(other.options_));
  copy->bind(test_case, [&](const Operand& operand, bool is_input) {
    const Tensor& from = other.slot(operand.name).memory;
    Slot slot{.operand = operand, .dtype = other.slot(operand.name).dtype};
    slot.is_input = is_input;
    slot.memory = Tensor::empty(from.shape(), from.dtype(), from.device(), MemoryTag::other);
    kernels::copy_bytes(from.device(), slot.memory.raw(), from.device(), from.raw(), from.nbytes());
    copy->set_argument(slot);
    copy->slots_.push_back(std::move(slot));
  });
  return copy;
}

void BoundCase::bind(const Case& test_case, const std::function<void(const Operand&, bool is_input)>& add) {
  slots_.reserve(test_case.inputs.size() + test_case.outputs.size());
  for (const Operand& operand : test_case.inputs) add(operand, true);
  for (const Operand& operand : test_case.outputs) {
    if (operand.in_place_of.empty()) {
      add(operand, false);
      continue;
    }
    shared_[operand.name] = operand.in_place_of;
    arguments_.set(operand.name, arguments_[operand.in_place_of]);
    for (Slot& input : slots_)
      if (input.operand.name == operand.in_place_of) input.overwritten = true;
  }
}

void BoundCase::add(const Operand& operand, const Contents& contents, bool is_input) {
  Slot slot{.operand = operand, .dtype = options_.wide && is_floating(operand.dtype) ? DType::f64 : operand.dtype};
  slot.is_input = is_input;
  const int64_t width = operand.shape.rank() == 0 ? 1 : operand.shape[-1];
  const int64_t rows = width == 0 ? 0 : operand.shape.numel() / width;
  const size_t element = static_cast<size_t>(size_of(slot.dtype));
  const size_t row_bytes = static_cast<size_t>(padded_row(operand)) * element;
  slot.host.assign(guard_bytes + static_cast<size_t>(rows) * row_bytes + guard_bytes, std::byte(options_.poison));
  if (const auto found = contents.find(operand.name); found != contents.end()) {
    const std::vector<double>& elements = found->second;
    if (elements.empty() && rows * width > 0)
      throw std::out_of_range("the case has no contents for '" + operand.name + "'");
    parallel_for(rows * width, 1 << 16, [&](int64_t begin, int64_t end) {
      size_t next = static_cast<size_t>(begin) % elements.size();
      for (int64_t at = begin; at < end;) {
        const int64_t row = at / width, row_end = std::min(end, (row + 1) * width);
        std::byte* to = slot.host.data() + guard_bytes + static_cast<size_t>(row) * row_bytes +
                        static_cast<size_t>(at % width) * element;
        for (; at < row_end; ++at, to += element) {
          store_element(to, slot.dtype, elements[next]);
          next = next + 1 == elements.size() ? 0 : next + 1;
        }
      }
    });
  }
  slot.original = slot.host;
  const Device device = operand.on_cpu ? Device{} : options_.device;
  slot.memory = Tensor::empty({static_cast<int64_t>(slot.host.size())}, DType::u8, device, MemoryTag::other);
  copy_to_device(slot.memory, slot.host);
  set_argument(slot);
  slots_.push_back(std::move(slot));
}

void BoundCase::set_argument(const Slot& slot) {
  const Operand& operand = slot.operand;
  Shape padded = operand.shape;
  if (operand.padding > 0) {
    std::vector<int64_t> extents(operand.shape.dims().begin(), operand.shape.dims().end());
    extents.back() += operand.padding;
    padded = Shape(std::span<const int64_t>(extents));
  }
  Tensor tensor = Tensor::from_storage(
      slot.memory.storage(), slot.memory.byte_offset() + static_cast<int64_t>(guard_bytes), padded, slot.dtype);
  if (operand.padding > 0) tensor = tensor.slice(operand.shape.rank() - 1, 0, operand.shape[-1]);
  arguments_.set(operand.name, tensor);
}

std::vector<std::string> BoundCase::finish() {
  const ManyCopies copies(options_.device);
  std::vector<std::string> faults;
  for (Slot& slot : slots_) {
    copy_from_device(slot.host, slot.memory);
    const Operand& operand = slot.operand;
    const int64_t width = operand.shape.rank() == 0 ? 1 : operand.shape[-1];
    const int64_t padded = padded_row(operand);
    const int64_t element = size_of(slot.dtype);
    const bool may_change = options_.inputs_may_change || !slot.is_input || slot.overwritten;
    for (size_t i = 0; i < slot.host.size(); ++i) {
      if (slot.host[i] == slot.original[i]) continue;
      const int64_t offset = static_cast<int64_t>(i) - static_cast<int64_t>(guard_bytes);
      const int64_t row = offset < 0 ? -1 : offset / (padded * element);
      const int64_t column = offset < 0 ? 0 : offset / element % padded;
      const bool inside = offset >= 0 && i < slot.host.size() - guard_bytes && column < width;
      if (inside && may_change) continue;
      faults.push_back(inside ? "input '" + operand.name + "' was changed at " +
                                    element_name(operand, static_cast<size_t>(row * width + column))
                              : "wrote outside '" + operand.name + "', " + std::to_string(offset) +
                                    " bytes after its first element (its rows are " + std::to_string(width * element) +
                                    " bytes, " + std::to_string(padded * element) + " apart)");
      break;
    }
  }
  return faults;
}

const BoundCase::Slot& BoundCase::slot(const std::string& name) const {
  const auto shared = shared_.find(name);
  const std::string& wanted = shared == shared_.end() ? name : shared->second;
  for (const Slot& slot : slots_)
    if (slot.operand.name == wanted) return slot;
  throw std::out_of_range("the case has no tensor named '" + name + "'");
}

std::vector<std::byte> BoundCase::read_bytes(const std::string& name) const {
  const Slot& from = slot(name);
  std::vector<std::byte> host = from.host;
  copy_from_device(host, from.memory);
  const size_t element = static_cast<size_t>(size_of(from.dtype));
  const size_t width = static_cast<size_t>(from.operand.shape.rank() == 0 ? 1 : from.operand.shape[-1]) * element;
  const size_t stride = static_cast<size_t>(padded_row(from.operand)) * element;
  std::vector<std::byte> packed;
  for (size_t offset = guard_bytes; offset + stride <= host.size() - guard_bytes && stride > 0; offset += stride)
    packed.insert(packed.end(), host.begin() + static_cast<int64_t>(offset),
                  host.begin() + static_cast<int64_t>(offset + width));
  return packed;
}

std::vector<double> BoundCase::read(const std::string& name) const {
  const std::vector<std::byte> packed = read_bytes(name);
  const DType dtype = slot(name).dtype;
  const size_t element = static_cast<size_t>(size_of(dtype));
  std::vector<double> elements(packed.size() / element);
  for (size_t i = 0; i < elements.size(); ++i) elements[i] = load_element(packed.data() + i * element, dtype);
  return elements;
}

void poison_cached_memory(Device device, Poison poison) {
  const ManyCopies copies(device);
  std::vector<Tensor> blocks;
  for (int64_t bytes = 64; bytes <= (1 << 18); bytes *= 2)
    for (const int64_t quarter : {4, 5, 6, 7}) {  // the allocator's size classes are quarters of a power of two
      const std::vector<std::byte> garbage(static_cast<size_t>(bytes * quarter / 4), std::byte(poison));
      blocks.push_back(Tensor::empty({static_cast<int64_t>(garbage.size())}, DType::u8, device, MemoryTag::workspace));
      copy_to_device(blocks.back(), garbage);
    }
}

void copy_to_device(const Tensor& bytes, const std::vector<std::byte>& host) {
  kernels::copy_bytes(bytes.device(), bytes.raw(), Device{}, host.data(), static_cast<int64_t>(host.size()));
}

void copy_from_device(std::vector<std::byte>& host, const Tensor& bytes) {
  kernels::copy_bytes(Device{}, host.data(), bytes.device(), bytes.raw(), static_cast<int64_t>(host.size()));
}

std::string element_name(const Operand& operand, size_t index) {
  std::string text;
  for (int i = operand.shape.rank() - 1; i >= 0; --i) {
    const size_t extent = static_cast<size_t>(operand.shape[i]);
    text = std::to_string(index % extent) + (text.empty() ? "" : ", ") + text;
    index /= extent;
  }
  return operand.name + "[" + text + "]";
}

}  // namespace lathe::testing
