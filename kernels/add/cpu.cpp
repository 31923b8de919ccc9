#include "kernels/add/bodies.h"

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class Out, class A, class B>
void add_typed(const AddArgs& args) {
  Out* out = static_cast<Out*>(args.out) + args.begin;
  const A* a = static_cast<const A*>(args.a) + args.begin;
  const B* b = static_cast<const B*>(args.b) + args.begin;
  const Vec scale = splat(args.scale);
  for_row(args.end - args.begin, [&](int64_t i, int count) {
    store_some(out + i, fma(scale, load_some(b + i, count), load_some(a + i, count)), count);
  });
}

template <class Out, class A>
void scale_typed(const AddArgs& args) {
  Out* out = static_cast<Out*>(args.out) + args.begin;
  const A* a = static_cast<const A*>(args.a) + args.begin;
  const Vec scale = splat(args.scale);
  for_row(args.end - args.begin,
          [&](int64_t i, int count) { store_some(out + i, scale * load_some(a + i, count), count); });
}

template <class Half, class Out, class A>
void choose_b(const AddArgs& args) {
  if (args.b == nullptr) return scale_typed<Out, A>(args);
  args.b_dtype == DType::f32 ? add_typed<Out, A, float>(args) : add_typed<Out, A, Half>(args);
}

template <class Half, class Out>
void choose_a(const AddArgs& args) {
  args.a_dtype == DType::f32 ? choose_b<Half, Out, float>(args) : choose_b<Half, Out, Half>(args);
}

template <class Half>
void choose_out(const AddArgs& args) {
  args.out_dtype == DType::f32 ? choose_a<Half, float>(args) : choose_a<Half, Half>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void add_range(AddArgs args) {
  args.half == DType::f16 ? choose_out<f16>(args) : choose_out<bf16>(args);
}
template void add_range<Isa::LATHE_ISA>(AddArgs);

}  // namespace lathe::kernels
