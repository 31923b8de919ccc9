#include "kernels/cuda/cublaslt.h"

#include "core/error.h"
#include "kernels/cuda/runtime.h"

#if defined(LATHE_WITH_CUDA) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#include <mutex>

#include "kernels/cuda/device_runtime.h"

namespace lathe::kernels {
namespace {

// The library's functions, by their own names.
class Library {
 public:
  Library() {
    for (const char* file : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
      handle_ = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
      if (handle_ != nullptr) break;
    }
    if (handle_ == nullptr) {
      const char* reason = ::dlerror();
      why_not_ = std::string("cuBLASLt cannot be loaded (") + (reason == nullptr ? "no reason given" : reason) +
                 "): put the CUDA Toolkit's libraries into LD_LIBRARY_PATH";
      return;
    }
    find(create, "cublasLtCreate");
    find(status_text, "cublasLtGetStatusString");
    find(make_product, "cublasLtMatmulDescCreate");
    find(set_product, "cublasLtMatmulDescSetAttribute");
    find(free_product, "cublasLtMatmulDescDestroy");
    find(make_matrix, "cublasLtMatrixLayoutCreate");
    find(free_matrix, "cublasLtMatrixLayoutDestroy");
    find(make_preference, "cublasLtMatmulPreferenceCreate");
    find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
    find(free_preference, "cublasLtMatmulPreferenceDestroy");
    find(propose, "cublasLtMatmulAlgoGetHeuristic");
    find(multiply, "cublasLtMatmul");
  }
  const std::string& why_not() const { return why_not_; }

  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtGetStatusString) status_text = nullptr;
  decltype(&cublasLtMatmulDescCreate) make_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatmulDescDestroy) free_product = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) make_matrix = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) free_matrix = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) make_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) free_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) propose = nullptr;
  decltype(&cublasLtMatmul) multiply = nullptr;

 private:
  template <class Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(handle_, name));
    if (function == nullptr) why_not_ = std::string("cuBLASLt has no function ") + name + ": install CUDA 12 or newer";
  }
  void* handle_ = nullptr;
  std::string why_not_;
};

const Library& library() {
  static const Library loaded;
  return loaded;
}

void check(cublasStatus_t status, const char* doing) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(std::string("cuBLASLt: ") + doing + ": " + library().status_text(status));
}

constexpr int64_t workspace_bytes = int64_t{32} << 20;

// What products of a card share until the program ends; their work is queued on one stream.
struct Card {
  cublasLtHandle_t handle = nullptr;
  Tensor workspace;
};
Card& card_of(Device device) {
  static auto* const cards = new std::map<int, Card>;
  static std::mutex making;
  const std::lock_guard lock(making);
  Card& card = (*cards)[device.index];
  if (card.handle == nullptr) {
    card.workspace = Tensor::empty({workspace_bytes}, DType::u8, device, MemoryTag::workspace);
    check(library().create(&card.handle), "starting");
  }
  return card;
}

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::f16: return CUDA_R_16F;
    default: throw ShapeError("cuBLASLt: expected f32, bf16 or f16, found " + std::string(name_of(dtype)));
  }
}

}  // namespace

std::string why_no_cublaslt(Device device) {
  if (device.kind != DeviceKind::cuda) return "cuBLASLt multiplies on CUDA cards only";
  if (std::string why = why_unavailable(device); !why.empty()) return why;
  return library().why_not();
}

// cuBLASLt's matrices have columns one after another. A row-major matrix is to it the transposed one, and so it is
// given outᵀ = rightᵀ · leftᵀ.
struct CublasltProduct::Plan {
  Tensor out, left, right;
  float accumulates = 0;
  Card* card = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulHeuristicResult_t chosen = {};

  ~Plan() {
    if (product != nullptr) library().free_product(product);
    for (cublasLtMatrixLayout_t matrix : {first, second, result})
      if (matrix != nullptr) library().free_matrix(matrix);
  }

  static void make_matrix(cublasLtMatrixLayout_t& layout, const Tensor& matrix) {
    check(library().make_matrix(&layout, type_of(matrix.dtype()), static_cast<uint64_t>(matrix.dim(1)),
                                static_cast<uint64_t>(matrix.dim(0)), matrix.stride(0)),
          "describing a matrix");
  }

  void choose() {
    cublasLtMatmulPreference_t preference = nullptr;
    check(library().make_preference(&preference), "asking for an algorithm");
    const auto bytes = static_cast<size_t>(workspace_bytes);
    library().set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
    int found = 0;
    const cublasStatus_t status =
        library().propose(card->handle, product, first, second, result, result, preference, 1, &chosen, &found);
    library().free_preference(preference);
    check(status, "asking for an algorithm");
    if (found == 0) throw Error("cuBLASLt has no algorithm for this product");
  }
};

CublasltProduct::CublasltProduct(const CublasltArgs& args) : plan_(std::make_unique<Plan>()) {
  const Device device = args.out.device();
  if (const std::string why = why_no_cublaslt(device); !why.empty()) throw ResourceError(why);
  const bool left_turned = args.layout == ProductLayout::columns_plain;
  const bool right_turned = args.layout == ProductLayout::rows_rows;
  const int64_t k = args.left.dim(left_turned ? 0 : 1);
  if (args.left.dim(left_turned ? 1 : 0) != args.out.dim(0) ||
      args.right.dim(right_turned ? 0 : 1) != args.out.dim(1) || args.right.dim(right_turned ? 1 : 0) != k)
    throw ShapeError("cuBLASLt: the operands do not fit: out " + describe(args.out) + ", left " + describe(args.left) +
                     ", right " + describe(args.right));
  use_device(device);
  plan_->out = args.out;
  plan_->left = args.left;
  plan_->right = args.right;
  plan_->accumulates = args.accumulates ? 1.0f : 0.0f;
  plan_->card = &card_of(device);
  check(library().make_product(&plan_->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  const cublasOperation_t first = right_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = left_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(library().set_product(plan_->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first),
        "describing a product");
  check(library().set_product(plan_->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second),
        "describing a product");
  Plan::make_matrix(plan_->first, args.right);
  Plan::make_matrix(plan_->second, args.left);
  Plan::make_matrix(plan_->result, args.out);
  plan_->choose();
}

CublasltProduct::~CublasltProduct() = default;

void CublasltProduct::queue() const {
  const Device device = plan_->out.device();
  const float one = 1.0f;
  const auto stream = static_cast<cudaStream_t>(device_runtime(device).stream(device.index));
  check(
      library().multiply(plan_->card->handle, plan_->product, &one, plan_->right.raw(), plan_->first, plan_->left.raw(),
                         plan_->second, &plan_->accumulates, plan_->out.raw(), plan_->result, plan_->out.raw(),
                         plan_->result, &plan_->chosen.algo, plan_->card->workspace.raw(), workspace_bytes, stream),
      "multiplying");
}

}  // namespace lathe::kernels

#else

namespace lathe::kernels {

std::string why_no_cublaslt(Device) { return "this program was built without cuBLASLt"; }

struct CublasltProduct::Plan {};
CublasltProduct::CublasltProduct(const CublasltArgs& args) { throw ResourceError(why_no_cublaslt(args.out.device())); }
CublasltProduct::~CublasltProduct() = default;
void CublasltProduct::queue() const {}

}  // namespace lathe::kernels

#endif
