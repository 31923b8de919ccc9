// The 16 values of nf4, quantiles of the normal distribution as QLoRA's authors published them, and the thresholds
// between them.
#pragma once

namespace lathe::kernels {

struct Nf4Codebook {
  float values[16];
  float thresholds[15];  // the f32 midpoints of neighbours: x has the code that counts those below it
};

inline constexpr Nf4Codebook nf4_codebook = [] {
  Nf4Codebook book = {{-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
                       -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
                       0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                       0.7229568362236023f, 1.0f},
                      {}};
  for (int i = 0; i < 15; ++i) book.thresholds[i] = (book.values[i] + book.values[i + 1]) / 2.0f;
  return book;
}();

// A smaller absmax counts as this one in divisions, so that a block of zeros is not divided by zero.
inline constexpr float nf4_least_absmax = 1e-38f;

}  // namespace lathe::kernels
