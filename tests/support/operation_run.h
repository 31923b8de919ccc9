// One call of a case on one device: its tensors between guard bytes, outputs poisoned, results read back.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/operation_cases.h"

namespace lathe::testing {

// What unwritten memory holds: 0xff is NaN in every floating dtype and −1 in signed integers, 0x7f is huge but finite.
enum class Poison : unsigned char { not_a_number = 0xff, huge = 0x7f };

struct BindOptions {
  Device device = {};
  bool wide = false;  // every floating operand is f64, on the CPU: the reference
  Poison poison = Poison::not_a_number;
  bool inputs_may_change = false;
};

class BoundCase {
 public:
  BoundCase(const Case& test_case, const Contents& contents, BindOptions options = {});
  // Tensors of its own with the same contents, copied from the other's memory where they lie: for repeated calls.
  // Without what finish() compares with.
  static std::unique_ptr<BoundCase> copy_of(const Case& test_case, const BoundCase& other);

  const Arguments& arguments() const { return arguments_; }
  // Copies everything back from the device. Then: faults found in the memory around and under the tensors (a write
  // outside a tensor, a changed input), as sentences.
  std::vector<std::string> finish();
  std::vector<double> read(const std::string& name) const;           // elements in f64, row-major
  std::vector<std::byte> read_bytes(const std::string& name) const;  // the same elements as stored

 private:
  struct Slot {
    Operand operand;
    DType dtype;
    std::vector<std::byte> host;      // guard, padded rows, guard
    std::vector<std::byte> original;  // as bound
    Tensor memory;                    // u8, on the device
    bool is_input = false;
    bool overwritten = false;  // an input that an output shares
  };
  explicit BoundCase(BindOptions options) : options_(options) {}
  void bind(const Case& test_case, const std::function<void(const Operand&, bool is_input)>& add);
  void add(const Operand& operand, const Contents& contents, bool is_input);
  void set_argument(const Slot& slot);
  const Slot& slot(const std::string& name) const;
  static int64_t padded_row(const Operand& operand);

  BindOptions options_;
  std::vector<Slot> slots_;
  std::map<std::string, std::string, std::less<>> shared_;  // in-place output → its input
  Arguments arguments_;
};

// Leaves poisoned blocks of every small size in the allocator's cache, so that workspace starts poisoned.
void poison_cached_memory(Device device, Poison poison);
void copy_to_device(const Tensor& bytes, const std::vector<std::byte>& host);
void copy_from_device(std::vector<std::byte>& host, const Tensor& bytes);

std::string element_name(const Operand& operand, size_t index);  // "out[3, 17]"

}  // namespace lathe::testing
