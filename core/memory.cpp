#include "core/memory.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "core/caching_allocator.h"
#include "core/error.h"

namespace lathe {
namespace {

thread_local MemoryTag current_tag = MemoryTag::activations;

// Never destroyed: tensors in static objects may outlive any order of destruction.
Allocator& cpu_allocator(int) {
  static auto* const allocator = new CachingAllocator(system_memory());
  return *allocator;
}

void fill_cpu(Device, void* pointer, int64_t bytes) { std::memset(pointer, 0, static_cast<size_t>(bytes)); }

std::array<DeviceMemory, 3>& registry() {
  static std::array<DeviceMemory, 3> devices = {DeviceMemory{cpu_allocator, fill_cpu}};
  return devices;
}

const DeviceMemory& memory_of(Device device) {
  const DeviceMemory& memory = registry()[static_cast<size_t>(device.kind)];
  if (memory.allocator == nullptr) {
    throw ResourceError("device " + to_string(device) + " is not available: this program was built without " +
                        (device.kind == DeviceKind::cuda ? "CUDA" : "the simt device") + "; use --device cpu");
  }
  return memory;
}

std::string table_row(const char* name, const std::array<int64_t, 3>& bytes) {
  char row[96];
  std::snprintf(row, sizeof row, "%-14s %12.1f %12.1f %12.1f\n", name, static_cast<double>(bytes[0]) / 0x1p20,
                static_cast<double>(bytes[1]) / 0x1p20, static_cast<double>(bytes[2]) / 0x1p20);
  return row;
}

std::string table_row(const char* name, int64_t now, int64_t peak) {
  char row[96];
  std::snprintf(row, sizeof row, "%-14s %12.1f %12.1f\n", name, static_cast<double>(now) / 0x1p20,
                static_cast<double>(peak) / 0x1p20);
  return row;
}

}  // namespace

std::string_view name_of(MemoryTag tag) {
  switch (tag) {
    case MemoryTag::weights: return "weights";
    case MemoryTag::adapters: return "adapters";
    case MemoryTag::gradients: return "gradients";
    case MemoryTag::optimizer: return "optimizer";
    case MemoryTag::activations: return "activations";
    case MemoryTag::kv_cache: return "kv_cache";
    case MemoryTag::workspace: return "workspace";
    case MemoryTag::other: return "other";
  }
  return "?";
}

std::string_view how_to_lower(MemoryTag tag) {
  switch (tag) {
    case MemoryTag::weights: return "take a smaller or quantised model, or --dtype bf16";
    case MemoryTag::adapters:
    case MemoryTag::gradients:
    case MemoryTag::optimizer: return "train an adapter instead of every weight (use_peft), or lower lora_r";
    case MemoryTag::activations:
    case MemoryTag::workspace:
      return "lower the batch size (per_device_train_batch_size, max_tokens_per_forward) or the length (max_length), or turn "
             "gradient_checkpointing on";
    case MemoryTag::kv_cache: return "lower max_tokens, the prompts' length or the number of requests at a time";
    case MemoryTag::other: break;
  }
  return "close other programs";
}

MemoryTagScope::MemoryTagScope(MemoryTag tag) : previous_(std::exchange(current_tag, tag)) {}
MemoryTagScope::~MemoryTagScope() { current_tag = previous_; }
MemoryTag MemoryTagScope::current() { return current_tag; }

Allocator& allocator_for(Device device) { return memory_of(device).allocator(device.index); }

void register_device_memory(DeviceKind kind, DeviceMemory memory) { registry()[static_cast<size_t>(kind)] = memory; }

void fill_zero(Device device, void* pointer, int64_t bytes) {
  if (bytes > 0) memory_of(device).fill_zero(device, pointer, bytes);
}

std::string memory_table(const MemoryStats& stats, const std::string& device) {
  char heading[96];
  std::snprintf(heading, sizeof heading, "%-14s %12s %12s %12s\n", ("MiB on " + device).c_str(), "live", "peak",
                "at peak");
  std::string table = heading;
  for (int i = 0; i < memory_tag_count; ++i) {
    const auto tag = static_cast<size_t>(i);
    if (stats.live_bytes[tag] == 0 && stats.peak_bytes[tag] == 0) continue;
    table += table_row(std::string(name_of(static_cast<MemoryTag>(i))).c_str(),
                       {stats.live_bytes[tag], stats.peak_bytes[tag], stats.at_peak_bytes[tag]});
  }
  table += table_row("total", {stats.total_live_bytes, stats.total_peak_bytes, stats.total_peak_bytes});
  table += table_row("with cache", stats.total_live_bytes + stats.cached_bytes, stats.reserved_peak_bytes);
  return table;
}

std::string memory_table(Device device) {
  char row[96];
  std::snprintf(row, sizeof row, "%-14s %12s %12.1f\n", "process RSS", "",
                static_cast<double>(process_peak_rss_bytes()) / 0x1p20);
  return memory_table(allocator_for(device).stats(), to_string(device)) + row;
}

std::shared_ptr<Storage> Storage::allocate(int64_t bytes, Device device, MemoryTag tag) {
  const auto storage = std::make_shared<Storage>(Key{});
  storage->data_ = allocator_for(device).allocate(bytes, tag);
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->tag_ = tag;
  storage->owned_ = true;
  return storage;
}

std::shared_ptr<Storage> Storage::wrap(void* data, int64_t bytes, Device device,
                                       std::shared_ptr<const void> keep_alive) {
  const auto storage = std::make_shared<Storage>(Key{});
  storage->data_ = data;
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->keep_alive_ = std::move(keep_alive);
  return storage;
}

Storage::~Storage() {
  if (owned_) allocator_for(device_).deallocate(data_, bytes_, tag_);
}

}  // namespace lathe
