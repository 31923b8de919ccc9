// One fork-join pool for the process. What a kernel computes never depends on the number of threads: work is cut
// by the shape of the problem and each piece writes its own output.
#pragma once

#include <cstdint>
#include <type_traits>

namespace lathe {

// A borrowed callable; lives no longer than the call it is passed to.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_const_t<F>, FunctionRef>)
  FunctionRef(F& f)
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, Args... args) -> R { return (*static_cast<F*>(object))(args...); }) {}
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

// Threads that work on a parallel_for, the caller included. At least 1 (else ConfigError); default: the CPUs that
// this process may use (affinity mask and cgroup quota). Not to be called from within a parallel_for (Error).
void set_thread_count(int threads);
int thread_count();

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of `grain` items (the last may be shorter),
// handed out dynamically. Returns when all are done. When bodies throw, the exception of the lowest range is
// rethrown and later ranges may be skipped. Nested calls run inline, and so does a call from a second thread while
// the pool is busy.
void parallel_for_ranges(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

template <class F>
void parallel_for(int64_t n, int64_t grain, F&& body) {
  parallel_for_ranges(n, grain, FunctionRef<void(int64_t, int64_t)>(body));
}

// 0 … thread_count()-1 inside a parallel_for (0 is the caller), 0 elsewhere: the index of per-thread scratch.
int thread_index();

}  // namespace lathe
