#include "core/collectives/mpi.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "core/error.h"

namespace lathe {
namespace {

// Elements of a tensor that are exchanged at a time: the workspace is this many for each of two buffers.
constexpr int64_t piece_elements = int64_t{1} << 18;
// MPI counts in int.
constexpr int64_t piece_bytes = int64_t{1} << 30;

void check(int code, const char* doing) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw ResourceError("MPI: " + std::string(doing) + ": " + std::string(text, static_cast<size_t>(length)));
}

void initialise() {
  static const bool once = [] {
    int before = 0;
    MPI_Initialized(&before);
    if (before == 0) {
      int provided = 0;
      check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "initialising");
      std::atexit([] {
        // After an error other ranks may never reach a finalise of their own, and ours would wait for them.
        if (std::uncaught_exceptions() == 0) MPI_Finalize();
      });
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return true;
  }();
  static_cast<void>(once);
}

// out[i] = Σ over the rows, ascending, of rows[r · count + i].
template <class T, class Sum>
void sum_rows(T* out, const T* rows, int ranks, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    Sum sum = static_cast<Sum>(rows[i]);
    for (int rank = 1; rank < ranks; ++rank) sum += static_cast<Sum>(rows[rank * count + i]);
    out[i] = static_cast<T>(sum);
  }
}

void sum_rows(DType dtype, void* out, const void* rows, int ranks, int64_t count) {
  const auto sum = [&]<class T, class Sum>(T*, Sum) {
    sum_rows<T, Sum>(static_cast<T*>(out), static_cast<const T*>(rows), ranks, count);
  };
  switch (dtype) {
    case DType::f32: return sum(static_cast<float*>(nullptr), 0.0f);
    case DType::bf16: return sum(static_cast<bf16*>(nullptr), 0.0f);
    case DType::f16: return sum(static_cast<f16*>(nullptr), 0.0f);
    case DType::f64: return sum(static_cast<double*>(nullptr), 0.0);
    case DType::i32: return sum(static_cast<int32_t*>(nullptr), uint32_t{0});
    case DType::i64: return sum(static_cast<int64_t*>(nullptr), uint64_t{0});
    default: return;
  }
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    initialise();
    check(MPI_Comm_dup(MPI_COMM_WORLD, &group_), "making a group");
    MPI_Comm_rank(group_, &rank_);
    MPI_Comm_size(group_, &size_);
  }
  ~MpiCommunicator() override {
    int over = 0;
    MPI_Finalized(&over);
    if (over == 0 && std::uncaught_exceptions() == 0) MPI_Comm_free(&group_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  // Each rank sums one part of the piece, then the parts are gathered: every element is moved twice, whatever the
  // ranks.
  void all_reduce_sum(const Tensor& tensor) override {
    collectives::expect_tensor("all_reduce_sum", "tensor", tensor, DeviceKind::cpu);
    collectives::expect_summable("all_reduce_sum", tensor);
    const int64_t element = size_of(tensor.dtype());
    auto* const data = static_cast<char*>(tensor.raw());
    for (int64_t first = 0; first < tensor.numel(); first += piece_elements) {
      const int64_t count = std::min(piece_elements, tensor.numel() - first);
      const int64_t part = (count + size_ - 1) / size_;  // the last parts may be short: padded here, cut off again
      std::vector<char> mine(static_cast<size_t>(part * size_ * element)), theirs(mine.size());
      std::memcpy(mine.data(), data + first * element, static_cast<size_t>(count * element));
      exchange_and_sum(tensor.dtype(), theirs.data() + rank_ * part * element, mine.data(), part);
      check(MPI_Allgather(MPI_IN_PLACE, 0, MPI_BYTE, theirs.data(), static_cast<int>(part * element), MPI_BYTE, group_),
            "gathering sums");
      std::memcpy(data + first * element, theirs.data(), static_cast<size_t>(count * element));
    }
    tensor.bump_version();
  }

  void broadcast(const Tensor& tensor, int root) override {
    collectives::expect_tensor("broadcast", "tensor", tensor, DeviceKind::cpu);
    collectives::expect_root("broadcast", root, size_);
    auto* const data = static_cast<char*>(tensor.raw());
    for (int64_t first = 0; first < tensor.nbytes(); first += piece_bytes)
      check(MPI_Bcast(data + first, static_cast<int>(std::min(piece_bytes, tensor.nbytes() - first)), MPI_BYTE, root,
                      group_),
            "broadcasting");
    tensor.bump_version();
  }

  void all_gather(const Tensor& out, const Tensor& in) override {
    collectives::expect_tensor("all_gather", "in", in, DeviceKind::cpu);
    collectives::expect_tensor("all_gather", "out", out, DeviceKind::cpu);
    collectives::expect_parts("all_gather", out, in, size_);
    for_pieces(in.numel(), [&](int64_t first, int64_t count) {
      const int64_t element = size_of(in.dtype());
      std::vector<char> gathered(static_cast<size_t>(count * size_ * element));
      const int bytes = static_cast<int>(count * element);
      check(MPI_Allgather(static_cast<const char*>(in.raw()) + first * element, bytes, MPI_BYTE, gathered.data(), bytes,
                          MPI_BYTE, group_),
            "gathering");
      for (int rank = 0; rank < size_; ++rank)
        std::memcpy(static_cast<char*>(out.raw()) + (rank * in.numel() + first) * element,
                    gathered.data() + rank * int64_t{bytes}, static_cast<size_t>(bytes));
    });
    out.bump_version();
  }

  void reduce_scatter_sum(const Tensor& out, const Tensor& in) override {
    collectives::expect_tensor("reduce_scatter_sum", "in", in, DeviceKind::cpu);
    collectives::expect_tensor("reduce_scatter_sum", "out", out, DeviceKind::cpu);
    collectives::expect_summable("reduce_scatter_sum", in);
    collectives::expect_parts("reduce_scatter_sum", in, out, size_);
    for_pieces(out.numel(), [&](int64_t first, int64_t count) {
      const int64_t element = size_of(in.dtype());
      std::vector<char> parts(static_cast<size_t>(count * size_ * element));
      for (int rank = 0; rank < size_; ++rank)
        std::memcpy(parts.data() + rank * count * element,
                    static_cast<const char*>(in.raw()) + (rank * out.numel() + first) * element,
                    static_cast<size_t>(count * element));
      exchange_and_sum(in.dtype(), static_cast<char*>(out.raw()) + first * element, parts.data(), count);
    });
    out.bump_version();
  }

  void barrier() override { check(MPI_Barrier(group_), "waiting for all ranks"); }

 private:
  template <class Body>
  void for_pieces(int64_t elements, Body body) const {
    const int64_t piece = std::max<int64_t>(1, piece_elements / size_);
    for (int64_t first = 0; first < elements; first += piece) body(first, std::min(piece, elements - first));
  }

  // `parts` holds size() parts of `count` elements; out = Σ over the ranks of their part number rank().
  void exchange_and_sum(DType dtype, void* out, const char* parts, int64_t count) const {
    const int bytes = static_cast<int>(count * size_of(dtype));
    std::vector<char> received(static_cast<size_t>(bytes) * static_cast<size_t>(size_));
    check(MPI_Alltoall(parts, bytes, MPI_BYTE, received.data(), bytes, MPI_BYTE, group_), "exchanging parts");
    sum_rows(dtype, out, received.data(), size_, count);
  }

  MPI_Comm group_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
};

}  // namespace

std::unique_ptr<Communicator> mpi_communicator() { return std::make_unique<MpiCommunicator>(); }

void end_mpi_processes(int code) {
  MPI_Abort(MPI_COMM_WORLD, code);
  std::abort();  // MPI_Abort does not return
}

}  // namespace lathe
