// Products of a warpgroup (wgmma, sm_90a): 64 × n sums in registers, both operands of bf16 or f16, computed while the
// threads go on. A warpgroup is 128 threads whose first is a multiple of 128; all of them execute
//
//   wgmma_fence();                            // what they did to d and a's registers comes first
//   wgmma(d, a, b, false); wgmma(d, a, b);    // 16 along k each
//   wgmma_commit();
//   wgmma_wait<0>(d);                         // from here on d may be read, a's registers written, stages refilled
//
// With w = warp % 4, g = lane / 4 and t = lane % 4 a thread has d[4 j + 2 h + i] at row 16 w + g + 8 h, column
// 8 j + 2 t + i: an AFragment of rows 16 w … is what it gives of A, two accumulators side by side, rounded, are one.
#pragma once

#include <type_traits>

#include "kernels/cuda/tile/fragment.cuh"
#if LATHE_SIMT
#include "kernels/simt/wgmma.h"
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// An operand in dynamic shared memory, as a descriptor. Its tile is made of panels of 64 elements (128 bytes) a line in
// 128-byte swizzle, each at a multiple of 1024: SwizzledTile<T, lines, 64>, what tensor_copy() writes.
// Only the low word of a descriptor is kept: the other says "1024 bytes to the next eight lines, 128-byte swizzle" of
// each, and what steps through a tile adds one word. (Shared memory ends before an address would run over its 14 bits.)
template <class T_, Major major_>
struct WgmmaOperand {
  using T = T_;
  static constexpr Major major = major_;
  static constexpr int eight_lines = 1024;  // bytes
  uint32_t low;

  __device__ __forceinline__ uint64_t descriptor() const {
    constexpr uint32_t high = eight_lines >> 4 | uint32_t{1} << 30;
    return uint64_t{high} << 32 | low;
  }
  __device__ __forceinline__ WgmmaOperand moved_by(int bytes) const {
    return {low + static_cast<uint32_t>(bytes >> 4)};
  }
  // The next 16 of k: 32 bytes on along a line, or 16 lines of 128 bytes.
  __device__ __forceinline__ WgmmaOperand next_k16(int steps) const {
    return moved_by(steps * (major == Major::k ? 32 : 2048));
  }
};

// Major::k: `first` is a multiple of eight lines into a tile whose lines are rows of the operand, 64 along k.
// Major::mn: lines are k, and where the product is wider than 64 the next panel begins `panel_bytes` further on.
template <Major major, class T>
__device__ __forceinline__ WgmmaOperand<T, major> wgmma_operand(const T* first, int panel_bytes = 1024) {
#if LATHE_SIMT
  return {static_cast<uint32_t>(::lathe::simt::wgmma_descriptor(
      first, static_cast<size_t>(panel_bytes), WgmmaOperand<T, major>::eight_lines, ::lathe::simt::Where::current()))};
#else
  return {(shared_address(first) >> 4 & 0x3fff) | static_cast<uint32_t>(panel_bytes >> 4 & 0x3fff) << 16};
#endif
}

#if LATHE_SIMT

namespace detail {
template <class T>
inline constexpr ::lathe::simt::TileElement wgmma_element =
    std::is_same_v<T, bf16_t> ? ::lathe::simt::TileElement::bf16 : ::lathe::simt::TileElement::f16;
}

inline void wgmma_fence(::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::wgmma_fence(where);
}
inline void wgmma_commit(::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::wgmma_commit(where);
}
template <int groups_left>
inline void wgmma_wait(::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  static_assert(groups_left >= 0 && groups_left <= 7);
  ::lathe::simt::wgmma_wait(groups_left, where);
}

// d [64 × n] = a [64 × 16] · b [16 × n] + (adds ? d : 0), n = 2 · sums: 8, 16, 32, 64, 96, 128 or 256.
// wgmma_of_rows(): a has so many rows only. The hardware multiplies what lies behind them in the block's shared memory,
// whoever writes it meanwhile, and those rows of d are to be left alone.
template <int sums, class T, Major a_major, Major b_major>
inline void wgmma_of_rows(int rows, float (&d)[sums], WgmmaOperand<T, a_major> a, WgmmaOperand<T, b_major> b,
                          bool adds = true, ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::wgmma({.n = 2 * sums,
                        .element = detail::wgmma_element<T>,
                        .d = d,
                        .a_registers = nullptr,
                        .a = a.descriptor(),
                        .b = b.descriptor(),
                        .a_along_mn = a_major == Major::mn,
                        .b_along_mn = b_major == Major::mn,
                        .adds = adds,
                        .rows = rows},
                       where);
}
template <int sums, class T, Major a_major, Major b_major>
inline void wgmma(float (&d)[sums], WgmmaOperand<T, a_major> a, WgmmaOperand<T, b_major> b, bool adds = true,
                  ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  wgmma_of_rows(64, d, a, b, adds, where);
}
template <int sums, class T, Major b_major>
inline void wgmma(float (&d)[sums], const AFragment<T>& a, WgmmaOperand<T, b_major> b, bool adds = true,
                  ::lathe::simt::Where where = ::lathe::simt::Where::current()) {
  ::lathe::simt::wgmma({.n = 2 * sums,
                        .element = detail::wgmma_element<T>,
                        .d = d,
                        .a_registers = a.registers,
                        .a = 0,
                        .b = b.descriptor(),
                        .a_along_mn = false,
                        .b_along_mn = b_major == Major::mn,
                        .adds = adds},
                       where);
}

// See RegisterSplit.
template <int registers>
inline void give_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}
template <int registers>
inline void take_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}

#else

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int groups_left>
__device__ __forceinline__ void wgmma_wait() {
  static_assert(groups_left >= 0 && groups_left <= 7);
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups_left) : "memory");
}
template <int registers>
__device__ __forceinline__ void give_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void take_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// The text of the instruction needs its operands by number: the sums are the first, then come a, b, adds and how the
// operands lie.
#define LATHE_TEXT_4 "%0, %1, %2, %3"
#define LATHE_TEXT_8 \
  LATHE_TEXT_4       \
  ", %4, %5, %6, %7"
#define LATHE_TEXT_16 \
  LATHE_TEXT_8        \
  ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LATHE_TEXT_32 \
  LATHE_TEXT_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LATHE_TEXT_48 \
  LATHE_TEXT_32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LATHE_TEXT_64                                                                                         \
  LATHE_TEXT_32                                                                                               \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52" \
  ", %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LATHE_TEXT_128                                                                                        \
  LATHE_TEXT_64                                                                                               \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84" \
  ", %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104" \
  ", %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121"    \
  ", %122, %123, %124, %125, %126, %127"
#define LATHE_SUMS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LATHE_SUMS_8(i) LATHE_SUMS_4(i), LATHE_SUMS_4(i + 4)
#define LATHE_SUMS_16(i) LATHE_SUMS_8(i), LATHE_SUMS_8(i + 8)
#define LATHE_SUMS_32(i) LATHE_SUMS_16(i), LATHE_SUMS_16(i + 16)
#define LATHE_SUMS_48(i) LATHE_SUMS_32(i), LATHE_SUMS_16(i + 32)
#define LATHE_SUMS_64(i) LATHE_SUMS_32(i), LATHE_SUMS_32(i + 32)
#define LATHE_SUMS_128(i) LATHE_SUMS_64(i), LATHE_SUMS_64(i + 64)

#define LATHE_WGMMA_SHARED(n, sums, type, a_number, b_number, adds_number, a_major_number, b_major_number) \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" adds_number ", 0; wgmma.mma_async.sync.aligned.m64n" n   \
               "k16.f32." type "." type " {" LATHE_TEXT_##sums                                             \
               "}, %" a_number ", %" b_number ", p, 1, 1, %" a_major_number ", %" b_major_number "; }"     \
               : LATHE_SUMS_##sums(0)                                                                      \
               : "l"(a.descriptor()), "l"(b.descriptor()), "r"(static_cast<int>(adds)),                    \
                 "n"(a_major == Major::mn ? 1 : 0), "n"(b_major == Major::mn ? 1 : 0)                      \
               : "memory")
#define LATHE_WGMMA_REGISTERS(n, sums, type, a0, a1, a2, a3, b_number, adds_number, b_major_number)                  \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" adds_number ", 0; wgmma.mma_async.sync.aligned.m64n" n             \
               "k16.f32." type "." type " {" LATHE_TEXT_##sums "}, {%" a0 ", %" a1 ", %" a2 ", %" a3 "}, %" b_number \
                                                               ", p, 1, 1, %" b_major_number "; }"                   \
               : LATHE_SUMS_##sums(0)                                                                                \
               : "r"(a.registers[0]), "r"(a.registers[1]), "r"(a.registers[2]), "r"(a.registers[3]),                 \
                 "l"(b.descriptor()), "r"(static_cast<int>(adds)), "n"(b_major == Major::mn ? 1 : 0)                 \
               : "memory")

template <int sums, class T, Major a_major, Major b_major>
__device__ __forceinline__ void wgmma(float (&d)[sums], WgmmaOperand<T, a_major> a, WgmmaOperand<T, b_major> b,
                                      bool adds = true) {
  static_assert(sums == 4 || sums == 8 || sums == 16 || sums == 32 || sums == 48 || sums == 64 || sums == 128);
  constexpr bool bf16 = std::is_same_v<T, bf16_t>;
  if constexpr (sums == 4 && bf16) {
    LATHE_WGMMA_SHARED("8", 4, "bf16", "4", "5", "6", "7", "8");
  } else if constexpr (sums == 4) {
    LATHE_WGMMA_SHARED("8", 4, "f16", "4", "5", "6", "7", "8");
  } else if constexpr (sums == 8 && bf16) {
    LATHE_WGMMA_SHARED("16", 8, "bf16", "8", "9", "10", "11", "12");
  } else if constexpr (sums == 8) {
    LATHE_WGMMA_SHARED("16", 8, "f16", "8", "9", "10", "11", "12");
  } else if constexpr (sums == 16 && bf16) {
    LATHE_WGMMA_SHARED("32", 16, "bf16", "16", "17", "18", "19", "20");
  } else if constexpr (sums == 16) {
    LATHE_WGMMA_SHARED("32", 16, "f16", "16", "17", "18", "19", "20");
  } else if constexpr (sums == 32 && bf16) {
    LATHE_WGMMA_SHARED("64", 32, "bf16", "32", "33", "34", "35", "36");
  } else if constexpr (sums == 32) {
    LATHE_WGMMA_SHARED("64", 32, "f16", "32", "33", "34", "35", "36");
  } else if constexpr (sums == 48 && bf16) {
    LATHE_WGMMA_SHARED("96", 48, "bf16", "48", "49", "50", "51", "52");
  } else if constexpr (sums == 48) {
    LATHE_WGMMA_SHARED("96", 48, "f16", "48", "49", "50", "51", "52");
  } else if constexpr (sums == 64 && bf16) {
    LATHE_WGMMA_SHARED("128", 64, "bf16", "64", "65", "66", "67", "68");
  } else if constexpr (sums == 64) {
    LATHE_WGMMA_SHARED("128", 64, "f16", "64", "65", "66", "67", "68");
  } else if constexpr (sums == 128 && bf16) {
    LATHE_WGMMA_SHARED("256", 128, "bf16", "128", "129", "130", "131", "132");
  } else if constexpr (sums == 128) {
    LATHE_WGMMA_SHARED("256", 128, "f16", "128", "129", "130", "131", "132");
  }
}

template <int sums, class T, Major a_major, Major b_major>
__device__ __forceinline__ void wgmma_of_rows(int, float (&d)[sums], WgmmaOperand<T, a_major> a,
                                              WgmmaOperand<T, b_major> b, bool adds = true) {
  wgmma(d, a, b, adds);
}

template <int sums, class T, Major b_major>
__device__ __forceinline__ void wgmma(float (&d)[sums], const AFragment<T>& a, WgmmaOperand<T, b_major> b,
                                      bool adds = true) {
  static_assert(sums == 4 || sums == 8 || sums == 16 || sums == 32 || sums == 48 || sums == 64 || sums == 128);
  constexpr bool bf16 = std::is_same_v<T, bf16_t>;
  if constexpr (sums == 4 && bf16) {
    LATHE_WGMMA_REGISTERS("8", 4, "bf16", "4", "5", "6", "7", "8", "9", "10");
  } else if constexpr (sums == 4) {
    LATHE_WGMMA_REGISTERS("8", 4, "f16", "4", "5", "6", "7", "8", "9", "10");
  } else if constexpr (sums == 8 && bf16) {
    LATHE_WGMMA_REGISTERS("16", 8, "bf16", "8", "9", "10", "11", "12", "13", "14");
  } else if constexpr (sums == 8) {
    LATHE_WGMMA_REGISTERS("16", 8, "f16", "8", "9", "10", "11", "12", "13", "14");
  } else if constexpr (sums == 16 && bf16) {
    LATHE_WGMMA_REGISTERS("32", 16, "bf16", "16", "17", "18", "19", "20", "21", "22");
  } else if constexpr (sums == 16) {
    LATHE_WGMMA_REGISTERS("32", 16, "f16", "16", "17", "18", "19", "20", "21", "22");
  } else if constexpr (sums == 32 && bf16) {
    LATHE_WGMMA_REGISTERS("64", 32, "bf16", "32", "33", "34", "35", "36", "37", "38");
  } else if constexpr (sums == 32) {
    LATHE_WGMMA_REGISTERS("64", 32, "f16", "32", "33", "34", "35", "36", "37", "38");
  } else if constexpr (sums == 48 && bf16) {
    LATHE_WGMMA_REGISTERS("96", 48, "bf16", "48", "49", "50", "51", "52", "53", "54");
  } else if constexpr (sums == 48) {
    LATHE_WGMMA_REGISTERS("96", 48, "f16", "48", "49", "50", "51", "52", "53", "54");
  } else if constexpr (sums == 64 && bf16) {
    LATHE_WGMMA_REGISTERS("128", 64, "bf16", "64", "65", "66", "67", "68", "69", "70");
  } else if constexpr (sums == 64) {
    LATHE_WGMMA_REGISTERS("128", 64, "f16", "64", "65", "66", "67", "68", "69", "70");
  } else if constexpr (sums == 128 && bf16) {
    LATHE_WGMMA_REGISTERS("256", 128, "bf16", "128", "129", "130", "131", "132", "133", "134");
  } else if constexpr (sums == 128) {
    LATHE_WGMMA_REGISTERS("256", 128, "f16", "128", "129", "130", "131", "132", "133", "134");
  }
}
#undef LATHE_TEXT_4
#undef LATHE_SUMS_4
#undef LATHE_TEXT_8
#undef LATHE_SUMS_8
#undef LATHE_TEXT_16
#undef LATHE_SUMS_16
#undef LATHE_TEXT_32
#undef LATHE_SUMS_32
#undef LATHE_TEXT_48
#undef LATHE_SUMS_48
#undef LATHE_TEXT_64
#undef LATHE_SUMS_64
#undef LATHE_TEXT_128
#undef LATHE_SUMS_128
#undef LATHE_WGMMA_SHARED
#undef LATHE_WGMMA_REGISTERS

#endif

// Waits, and no earlier does the compiler look at d, whose registers it takes for the results of wgmma() itself.
template <int groups_left, int sums>
__device__ __forceinline__ void wgmma_wait([[maybe_unused]] float (&d)[sums]) {
  wgmma_wait<groups_left>();
#if !LATHE_SIMT
  LATHE_UNROLL
  for (int i = 0; i < sums; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// After the wait: until here nothing else may have a's registers. ptxas before 13.3 gives them away before a wgmma that
// is under way has read them.
template <class T>
__device__ __forceinline__ void wgmma_done_with([[maybe_unused]] const AFragment<T>& a) {
#if !LATHE_SIMT
  LATHE_UNROLL
  for (uint32_t word : a.registers) asm volatile("" ::"r"(word) : "memory");
#endif
}

// How a producing warpgroup and `consumers` consuming ones of a block share its registers. The pool that setmaxnreg
// takes from is what the block was started with: 65536 divided by the threads of as many blocks as __launch_bounds__
// say, rounded down to eights, for each of them. A consumer that asks for more than is there waits for ever, as an H200
// showed with 32 + 240 + 240 of 3 · 168.
template <int consumers, int of_producer, int of_consumer, int blocks = 1>
struct RegisterSplit {
  static constexpr int at_start = 65536 / (128 * (1 + consumers) * blocks) / 8 * 8;
  static_assert(of_producer + consumers * of_consumer <= (1 + consumers) * at_start, "waits for ever");

  static __device__ __forceinline__ void give() { give_registers<of_producer>(); }  // the producing warpgroup
  static __device__ __forceinline__ void take() { take_registers<of_consumer>(); }  // a consuming one
};
// Nothing is exchanged.
struct RegistersAsStarted {
  static __device__ __forceinline__ void give() {}
  static __device__ __forceinline__ void take() {}
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
