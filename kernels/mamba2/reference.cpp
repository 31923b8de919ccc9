#include "kernels/mamba2/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/rows.h"

namespace lathe::kernels::reference {
namespace {

// What a token has for a head.
struct Mamba2Token {
  const Mamba2& in;
  int64_t row, head;

  int64_t group() const { return head / (in.heads.heads / in.heads.groups); }
  int64_t x_column() const { return head * in.heads.head_dim; }
  int64_t b_column() const { return in.heads.out_columns() + group() * in.heads.state_size; }
  int64_t c_column() const { return b_column() + in.heads.groups * in.heads.state_size; }
  double x(int64_t p) const { return at(in.xbc, row, x_column() + p); }
  double b(int64_t n) const { return at(in.xbc, row, b_column() + n); }
  double c(int64_t n) const { return at(in.xbc, row, c_column() + n); }

  double raw_step() const { return at(in.dt, row, head) + at(in.dt_bias, head); }
  double softplus() const { return std::max(raw_step(), 0.0) + std::log1p(std::exp(-std::abs(raw_step()))); }
  double step() const { return std::clamp(softplus(), double{in.dt_min}, double{in.dt_max}); }
  // Its derivative by raw_step().
  double step_slope() const {
    return softplus() >= in.dt_min && softplus() <= in.dt_max ? 1.0 / (1.0 + std::exp(-raw_step())) : 0.0;
  }
  double rate() const { return std::exp(at(in.A_log, head)); }
  double gamma() const { return std::exp(-rate() * step()); }
};

// S or its gradient, of a head.
struct Mamba2State {
  int64_t rows, columns;
  std::vector<double> elements;
  explicit Mamba2State(const Mamba2Heads& heads)
      : rows(heads.state_size), columns(heads.head_dim), elements(static_cast<size_t>(rows * columns)) {}
  double& operator()(int64_t n, int64_t p) { return elements[static_cast<size_t>(n * columns + p)]; }
  double operator()(int64_t n, int64_t p) const { return elements[static_cast<size_t>(n * columns + p)]; }

  // From S_{t−1} to S_t.
  void advance(const Mamba2Token& token) {
    const double gamma = token.gamma(), step = token.step();
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t p = 0; p < columns; ++p) (*this)(n, p) = gamma * (*this)(n, p) + token.b(n) * step * token.x(p);
  }
  void write_out(const Tensor& out, const Mamba2Token& token) const {
    for (int64_t p = 0; p < columns; ++p) {
      double sum = 0;
      for (int64_t n = 0; n < rows; ++n) sum += (*this)(n, p) * token.c(n);
      put(out, token.row, token.x_column() + p, sum + at(token.in.D, token.head) * token.x(p));
    }
  }
};

// The gradients of a token's B and C, which its heads share, unrounded.
struct Mamba2Sums {
  std::vector<double> b, c;
  explicit Mamba2Sums(const Mamba2Heads& heads)
      : b(static_cast<size_t>(heads.groups * heads.state_size)), c(b.size()) {}
};

// The backward of one head's sequence, rows [first, end).
class Mamba2HeadGradient {
 public:
  Mamba2HeadGradient(const Mamba2& in, int64_t head, int64_t first, int64_t end)
      : in_(in), head_(head), first_(first), end_(end) {
    Mamba2State state(in.heads);
    for (int64_t row = first; row < end; ++row) {
      before_.push_back(state);
      state.advance({in, row, head});
    }
  }

  void run(const Tensor& grad_xbc, const Tensor& grad_dt, const Tensor& grad_out, std::vector<Mamba2Sums>& sums) {
    Mamba2State grad(in_.heads);
    for (int64_t row = end_ - 1; row >= first_; --row) {
      const Mamba2Token token{in_, row, head_};
      const Mamba2State& before = before_[static_cast<size_t>(row - first_)];
      const double gamma = token.gamma(), step = token.step();
      const auto grad_o = [&](int64_t p) { return at(grad_out, row, token.x_column() + p); };
      Mamba2Sums& of_row = sums[static_cast<size_t>(row - first_)];
      const auto group_place = [&](int64_t n) { return static_cast<size_t>(token.group() * grad.rows + n); };
      double of_log_gamma = 0, of_step = 0;
      for (int64_t p = 0; p < grad.columns; ++p) {
        double of_added = 0;  // of Δ x
        for (int64_t n = 0; n < grad.rows; ++n) {
          const double decayed = gamma * before(n, p);
          of_row.c[group_place(n)] += (decayed + token.b(n) * step * token.x(p)) * grad_o(p);
          grad(n, p) += token.c(n) * grad_o(p);
          of_row.b[group_place(n)] += grad(n, p) * step * token.x(p);
          of_added += grad(n, p) * token.b(n);
          of_log_gamma += grad(n, p) * decayed;
          grad(n, p) *= gamma;
        }
        put(grad_xbc, row, token.x_column() + p, step * of_added + at(in_.D, head_) * grad_o(p));
        of_step += of_added * token.x(p);
        of_D += grad_o(p) * token.x(p);
      }
      const double of_raw = (of_step - of_log_gamma * token.rate()) * token.step_slope();
      put(grad_dt, row, head_, of_raw);
      of_dt_bias += of_raw;
      of_A_log -= of_log_gamma * token.rate() * step;
    }
  }

  double of_A_log = 0, of_D = 0, of_dt_bias = 0;

 private:
  const Mamba2& in_;
  int64_t head_, first_, end_;
  std::vector<Mamba2State> before_;  // S_{t−1}
};

}  // namespace

void mamba2_forward(const Tensor& out, const Mamba2& inputs, const Tensor& cu_seqlens) {
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    for (int64_t head = 0; head < inputs.heads.heads; ++head) {
      Mamba2State state(inputs.heads);
      for (int64_t row = bounds[s]; row < bounds[s + 1]; ++row) {
        const Mamba2Token token{inputs, row, head};
        state.advance(token);
        state.write_out(out, token);
      }
    }
  }
}

void mamba2_backward(const Tensor& grad_xbc, const Tensor& grad_dt, const Tensor& grad_A_log, const Tensor& grad_D,
                     const Tensor& grad_dt_bias, const Tensor& grad_out, const Mamba2& inputs,
                     const Tensor& cu_seqlens) {
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    std::vector<Mamba2Sums> sums(static_cast<size_t>(bounds[s + 1] - bounds[s]), Mamba2Sums(inputs.heads));
    for (int64_t head = 0; head < inputs.heads.heads; ++head) {
      Mamba2HeadGradient of_head(inputs, head, bounds[s], bounds[s + 1]);
      of_head.run(grad_xbc, grad_dt, grad_out, sums);
      if (grad_A_log.defined()) add(grad_A_log, head, of_head.of_A_log);
      if (grad_D.defined()) add(grad_D, head, of_head.of_D);
      if (grad_dt_bias.defined()) add(grad_dt_bias, head, of_head.of_dt_bias);
    }
    for (int64_t row = bounds[s]; row < bounds[s + 1]; ++row) {
      const Mamba2Sums& of_row = sums[static_cast<size_t>(row - bounds[s])];
      const int64_t first = inputs.heads.out_columns(), count = std::ssize(of_row.b);
      for (int64_t i = 0; i < count; ++i) {
        put(grad_xbc, row, first + i, of_row.b[static_cast<size_t>(i)]);
        put(grad_xbc, row, first + count + i, of_row.c[static_cast<size_t>(i)]);
      }
    }
  }
}

void mamba2_step(const Tensor& out, const Tensor& states, const Mamba2& inputs, const PagedBatch& batch) {
  const Mamba2Heads& heads = inputs.heads;
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t first = batch.bounds()[s], end = batch.bounds()[s + 1];
    if (first == end) continue;
    for (int64_t head = 0; head < heads.heads; ++head) {
      Mamba2State state(heads);
      const int64_t place = (batch.state_slot(s) * heads.heads + head) * heads.state_size * heads.head_dim;
      if (!batch.begins(s))
        for (size_t i = 0; i < state.elements.size(); ++i)
          state.elements[i] = at(states, place + static_cast<int64_t>(i));
      for (int64_t row = first; row < end; ++row) {
        const Mamba2Token token{inputs, row, head};
        state.advance(token);
        state.write_out(out, token);
      }
      for (size_t i = 0; i < state.elements.size(); ++i)
        write(states.dtype(), states.raw(), place + static_cast<int64_t>(i), state.elements[i]);
    }
  }
}

}  // namespace lathe::kernels::reference
