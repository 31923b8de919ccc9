// Runs the body of an operation on rows or on columns, on any device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/thread_pool.h"
#include "kernels/dispatch.h"

namespace lathe::kernels {

// About 16k elements: some microseconds, so that a few rows stay on the caller.
inline int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns)); }

// Rows [0, args.row_end): all of them by the device's body, or ranges of them by the CPU's, dealt out to threads, of a
// row that is as much work as so many columns.
// `body` names both: []<auto target>(const ScaleArgs& rows) { scale_rows<target>(rows); }
template <class Args, class Body>
void run_rows(const Args& args, Device device, int64_t columns, const Body& body) {
  if (device.kind != DeviceKind::cpu)
    return with_device(device, [&]<DeviceKind kind>() { body.template operator()<kind>(args); });
  parallel_for(args.row_end, row_grain(columns), [&](int64_t begin, int64_t end) {
    Args range = args;
    range.row_begin = begin;
    range.row_end = end;
    with_isa([&]<Isa isa>() { body.template operator()<isa>(range); });
  });
}
template <class Args, class Body>
void run_rows(const Args& args, Device device, const Body& body) {
  run_rows(args, device, args.columns, body);
}

// The same by columns [0, args.column_end), each of which is as much work as a row of `work` columns; the CPU's ranges
// begin at whole cache lines of each row.
template <class Args, class Body>
void run_columns(const Args& args, Device device, int64_t work, const Body& body) {
  if (device.kind != DeviceKind::cpu)
    return with_device(device, [&]<DeviceKind kind>() { body.template operator()<kind>(args); });
  const int64_t grain = std::max<int64_t>(64, row_grain(work) / 64 * 64);
  parallel_for(args.column_end, grain, [&](int64_t begin, int64_t end) {
    Args range = args;
    range.column_begin = begin;
    range.column_end = end;
    with_isa([&]<Isa isa>() { body.template operator()<isa>(range); });
  });
}

}  // namespace lathe::kernels
