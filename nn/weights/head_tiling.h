// The order of a gated delta net's value heads in GGUF. Hugging Face has those of one key head side by side (k0 v0, k0
// v1, k1 v0, …); llama.cpp's converter the first of each key head, then the second of each (k0 v0, k1 v0, …, k0 v1, …).
#pragma once

#include <cstdint>

namespace lathe::nn {

struct HeadTiling {
  int64_t key_heads = 0, per_key = 0;  // per_key · key_heads value heads; in either order the same where one is 1
  int64_t size = 1;                    // rows, or columns, of a head
  int64_t first = 0;                   // where they begin: q's and k's lie before

  int64_t end() const { return first + key_heads * per_key * size; }
  bool changes() const { return key_heads > 1 && per_key > 1; }
  // Where the file has row (or column) `index` of Hugging Face's, and the other way round.
  int64_t stored(int64_t index) const { return moved(index, per_key, key_heads); }
  int64_t plain(int64_t index) const { return moved(index, key_heads, per_key); }

 private:
  // Head i · inner + j becomes head j · outer + i.
  int64_t moved(int64_t index, int64_t inner, int64_t outer) const {
    if (index < first || !changes()) return index;
    const int64_t head = (index - first) / size, within = (index - first) % size;
    return first + (head % inner * outer + head / inner) * size + within;
  }
};

}  // namespace lathe::nn
