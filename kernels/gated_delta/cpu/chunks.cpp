#include "kernels/gated_delta/cpu/chunk.h"
#include "kernels/gated_delta/cpu/state.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using namespace gated_delta;

// Rows [place.column, …) of S, which make the same rows of the gradients of q̂ and k̂ of a chunk's tokens.
template <class T>
class ChunkRows {
 public:
  ChunkRows(const GatedDeltaBackwardArgs& args, const Place& place, const Chunk& chunk)
      : args_(args), place_(place), chunk_(chunk), matrix_(matrix_of_chunk(args, chunk.number, place.head)) {}

  void run() {
    if (chunk_.is_first) {
      state_.clear(args_.value_dim);
    } else {
      take(args_.work.chunk_states);
      multiply_with_state();
    }
    go_forward();
    if (chunk_.is_last) {
      state_.clear(args_.value_dim);
    } else {
      take(args_.work.chunk_grad_states);
      multiply_with_grad_state();
    }
    go_backward();
  }

 private:
  void take(const float* matrices) {
    for_transposed(matrices + matrix_, args_.value_dim, place_.column, place_.count,
                   [&](int64_t j, int v, Vec x) { store(state_.at[j] + v * lanes, x); });
  }
  LATHE_INLINE Block own(const float* along_keys) const { return load_block(along_keys + place_.column, place_.count); }
  LATHE_INLINE float* own_gradient(float* of, int64_t row) const {
    return of + (row * args_.value_heads + place_.head) * args_.key_dim + place_.column;
  }
  // The block's share of a token's number.
  LATHE_INLINE void store_share(float* of, int64_t row, const Block& products) const {
    Vec sum = products.at[0];
    for (int v = 1; v < vectors; ++v) sum = sum + products.at[v];
    of[(row * args_.value_heads + place_.head) * (args_.key_dim / 8) + place_.column / width] = sum_lanes(sum);
  }

  void multiply_with_state() {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const Block with_out = sum_of_rows(state_, token.grad_out, args_.value_dim),
                  with_found = sum_of_rows(state_, token.grad_found, args_.value_dim);
      store_share(args_.work.of_state, row, fma_block(own(tokens_.q[t]), with_out, own(tokens_.k[t]) * with_found));
    });
  }
  void go_forward() {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const Block gamma = splat_block(tokens_.gamma[t]), k = own(tokens_.k[t]);
      Block grad_q{}, grad_k{};
      for (int64_t j = 0; j < args_.value_dim; ++j) {
        const Block decayed = gamma * state_.row(j);
        grad_k = fma_block(splat_block(token.grad_found[j]), decayed, grad_k);
        const Block added = fma_block(splat_block(token.delta[j]), k, decayed);
        state_.set_row(j, added);
        grad_q = fma_block(splat_block(token.grad_out[j]), added, grad_q);
      }
      store_block(own_gradient(args_.work.grad_q, row), grad_q, place_.count);
      store_block(own_gradient(args_.work.grad_k, row), grad_k, place_.count);
    });
  }
  void multiply_with_grad_state() {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      store_share(args_.work.of_grad_state, row, own(tokens_.k[t]) * sum_of_rows(state_, token.delta, args_.value_dim));
    });
    if (chunk_.is_first) return;
    Block products{};
    for_transposed(
        args_.work.chunk_states + matrix_, args_.value_dim, place_.column, place_.count,
        [&](int64_t j, int v, Vec x) { products.at[v] = fma(load(state_.at[j] + v * lanes), x, products.at[v]); });
    store_block(
        args_.work.bounds_product + (chunk_.number * args_.value_heads + place_.head) * args_.key_dim + place_.column,
        products, place_.count);
  }
  void go_backward() {
    for_tokens<T>(args_, place_, tokens_, Order::backward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const Block gamma = splat_block(tokens_.gamma[t]), q = own(tokens_.q[t]), k = own(tokens_.k[t]);
      Block grad_k{};
      for (int64_t j = 0; j < args_.value_dim; ++j) {
        const Block added = fma_block(splat_block(token.grad_out[j]), q, state_.row(j));
        grad_k = fma_block(splat_block(token.delta[j]), added, grad_k);
        state_.set_row(j, gamma * fma_block(splat_block(token.grad_found[j]), k, added));
      }
      float* const sum = own_gradient(args_.work.grad_k, row);
      store_block(sum, load_block(sum, place_.count) + grad_k, place_.count);
    });
  }

  const GatedDeltaBackwardArgs& args_;
  const Place& place_;
  const Chunk& chunk_;
  int64_t matrix_;
  State state_;  // transposed: S, then its gradient
  Tokens tokens_;
};

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void gated_delta_chunk_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_block(args, args.key_dim, begin, end, [&](Place place) {
      Chunk chunk{place.sequence, false, false};  // the group is one here
      if (find_chunk(args, chunk, place)) ChunkRows<T>(args, place, chunk).run();
    });
  });
}
template void gated_delta_chunk_parts<Isa::LATHE_ISA>(GatedDeltaBackwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
