#include "core/collectives/communicator.h"

#include <cstring>
#include <string>

#include "core/error.h"

namespace lathe {
namespace collectives {
namespace {

[[noreturn]] void fail(const char* operation, const std::string& reason) {
  throw ShapeError(std::string(operation) + ": " + reason);
}

}  // namespace

void expect_tensor(const char* operation, const char* argument, const Tensor& tensor, DeviceKind device) {
  if (!tensor.defined()) fail(operation, std::string(argument) + " is undefined");
  if (!tensor.is_contiguous())
    fail(operation, std::string(argument) + " expects contiguous memory, found strides in " + describe(tensor));
  if (tensor.device().kind != device)
    fail(operation, std::string(argument) + " expects a tensor on " + to_string(Device{device, 0}) + ", found " +
                        describe(tensor));
}

void expect_summable(const char* operation, const Tensor& tensor) {
  const DType dtype = tensor.dtype();
  if (!is_floating(dtype) && dtype != DType::i32 && dtype != DType::i64)
    fail(operation, "sums take f32, bf16, f16, f64, i32 and i64, found " + describe(tensor));
}

void expect_parts(const char* operation, const Tensor& whole, const Tensor& part, int parts) {
  if (whole.dtype() != part.dtype() || whole.numel() != parts * part.numel())
    fail(operation, "expected a tensor and " + std::to_string(parts) +
                        " (the ranks) times as many elements of the same dtype, found " + describe(part) + " and " +
                        describe(whole));
}

void expect_root(const char* operation, int root, int size) {
  if (root < 0 || root >= size)
    fail(operation, "rank " + std::to_string(root) + " is not one of " + std::to_string(size));
}

}  // namespace collectives

namespace {

class OneProcess final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce_sum(const Tensor& tensor) override {
    collectives::expect_tensor("all_reduce_sum", "tensor", tensor, DeviceKind::cpu);
    collectives::expect_summable("all_reduce_sum", tensor);
  }
  void broadcast(const Tensor& tensor, int root) override {
    collectives::expect_tensor("broadcast", "tensor", tensor, DeviceKind::cpu);
    collectives::expect_root("broadcast", root, 1);
  }
  void all_gather(const Tensor& out, const Tensor& in) override { copy("all_gather", out, in); }
  void reduce_scatter_sum(const Tensor& out, const Tensor& in) override {
    collectives::expect_summable("reduce_scatter_sum", in);
    copy("reduce_scatter_sum", out, in);
  }
  void barrier() override {}

 private:
  static void copy(const char* operation, const Tensor& out, const Tensor& in) {
    collectives::expect_tensor(operation, "in", in, DeviceKind::cpu);
    collectives::expect_tensor(operation, "out", out, DeviceKind::cpu);
    collectives::expect_parts(operation, out, in, 1);
    if (in.nbytes() > 0) std::memmove(out.raw(), in.raw(), static_cast<size_t>(in.nbytes()));
    out.bump_version();
  }
};

}  // namespace

std::unique_ptr<Communicator> one_process_communicator() { return std::make_unique<OneProcess>(); }

}  // namespace lathe
