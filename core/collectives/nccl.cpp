#include "core/collectives/nccl.h"

#include <nccl.h>

#include <cstring>
#include <string>

#include "core/error.h"

namespace lathe {
namespace {

static_assert(sizeof(ncclUniqueId) == sizeof(NcclGroupId));

void check(ncclResult_t code, const char* doing) {
  if (code != ncclSuccess)
    throw ResourceError("NCCL: " + std::string(doing) + ": " + ncclGetErrorString(code) +
                        "; NCCL_DEBUG=WARN in the environment says more");
}

void check(cudaError_t code, const char* doing) {
  if (code != cudaSuccess) throw ResourceError("CUDA: " + std::string(doing) + ": " + cudaGetErrorString(code));
}

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::f16: return ncclFloat16;
    case DType::f64: return ncclFloat64;
    case DType::i32: return ncclInt32;
    case DType::i64: return ncclInt64;
    default: return ncclUint8;
  }
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const NcclGroupId& id, int rank, int size, Device device, void* stream)
      : rank_(rank), size_(size), device_(device), stream_(static_cast<cudaStream_t>(stream)) {
    use();
    ncclUniqueId unique;
    std::memcpy(&unique, id.data(), sizeof unique);
    check(ncclCommInitRank(&group_, size, unique, rank), "making a group of cards");
  }
  ~NcclCommunicator() override { ncclCommDestroy(group_); }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void all_reduce_sum(const Tensor& tensor) override {
    prepare("all_reduce_sum", "tensor", tensor);
    collectives::expect_summable("all_reduce_sum", tensor);
    check(ncclAllReduce(tensor.raw(), tensor.raw(), count(tensor), type_of(tensor.dtype()), ncclSum, group_, stream_),
          "summing");
    tensor.bump_version();
  }

  void broadcast(const Tensor& tensor, int root) override {
    prepare("broadcast", "tensor", tensor);
    collectives::expect_root("broadcast", root, size_);
    check(ncclBroadcast(tensor.raw(), tensor.raw(), static_cast<size_t>(tensor.nbytes()), ncclUint8, root, group_,
                        stream_),
          "broadcasting");
    tensor.bump_version();
  }

  void all_gather(const Tensor& out, const Tensor& in) override {
    prepare("all_gather", "in", in);
    prepare("all_gather", "out", out);
    collectives::expect_parts("all_gather", out, in, size_);
    check(ncclAllGather(in.raw(), out.raw(), static_cast<size_t>(in.nbytes()), ncclUint8, group_, stream_),
          "gathering");
    out.bump_version();
  }

  void reduce_scatter_sum(const Tensor& out, const Tensor& in) override {
    prepare("reduce_scatter_sum", "in", in);
    prepare("reduce_scatter_sum", "out", out);
    collectives::expect_summable("reduce_scatter_sum", in);
    collectives::expect_parts("reduce_scatter_sum", in, out, size_);
    check(ncclReduceScatter(in.raw(), out.raw(), count(out), type_of(in.dtype()), ncclSum, group_, stream_),
          "summing parts");
    out.bump_version();
  }

  void barrier() override {
    const Tensor one = Tensor::zeros({1}, DType::i32, device_, MemoryTag::workspace);
    all_reduce_sum(one);
    check(cudaStreamSynchronize(stream_), "waiting for all cards");
  }

 private:
  static size_t count(const Tensor& tensor) { return static_cast<size_t>(tensor.numel()); }
  void use() const { check(cudaSetDevice(device_.index), "choosing the device"); }
  void prepare(const char* operation, const char* argument, const Tensor& tensor) const {
    collectives::expect_tensor(operation, argument, tensor, DeviceKind::cuda);
    use();
  }

  int rank_, size_;
  Device device_;
  cudaStream_t stream_;
  ncclComm_t group_ = nullptr;
};

}  // namespace

NcclGroupId make_nccl_group_id() {
  ncclUniqueId unique;
  check(ncclGetUniqueId(&unique), "naming a group of cards");
  NcclGroupId id;
  std::memcpy(id.data(), &unique, sizeof unique);
  return id;
}

std::unique_ptr<Communicator> nccl_communicator(const NcclGroupId& id, int rank, int size, Device device,
                                                void* stream) {
  return std::make_unique<NcclCommunicator>(id, rank, size, device, stream);
}

std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Device device, void* stream) {
  NcclGroupId id{};
  if (bootstrap.rank() == 0) id = make_nccl_group_id();
  const Tensor bytes = Tensor::empty({static_cast<int64_t>(id.size())}, DType::i8);
  std::memcpy(bytes.raw(), id.data(), id.size());
  bootstrap.broadcast(bytes, 0);
  std::memcpy(id.data(), bytes.raw(), id.size());
  return nccl_communicator(id, bootstrap.rank(), bootstrap.size(), device, stream);
}

}  // namespace lathe
