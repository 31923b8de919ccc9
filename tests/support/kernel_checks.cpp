#include "tests/support/kernel_checks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>

#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "tests/support/operation_run.h"

namespace lathe::testing {
namespace {

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// Puts the instruction set and the thread count of a check in place, and the process's own back.
class PlaceScope {
 public:
  explicit PlaceScope(const Place& place) : isa_(kernels::active_isa()), threads_(thread_count()) {
    if (place.isa) kernels::set_active_isa(*place.isa);
  }
  ~PlaceScope() {
    kernels::set_active_isa(isa_);
    set_thread_count(threads_);
  }
  PlaceScope(const PlaceScope&) = delete;
  PlaceScope& operator=(const PlaceScope&) = delete;

 private:
  kernels::Isa isa_;
  int threads_;
};

using Bytes = std::map<std::string, std::vector<std::byte>, std::less<>>;

Bytes run(const Case& test_case, const Contents& contents, const Place& place, int threads, Faults& faults,
          Poison poison = Poison::not_a_number) {
  set_thread_count(threads);
  BoundCase bound(test_case, contents, {.device = place.device, .poison = poison});
  poison_cached_memory(place.device, poison);
  test_case.run(bound.arguments());
  kernels::synchronize(place.device);
  const Faults found = bound.finish();
  faults.insert(faults.end(), found.begin(), found.end());
  Bytes bytes;
  for (const Operand& output : test_case.outputs) bytes[output.name] = bound.read_bytes(output.name);
  return bytes;
}

// The first element that differs, or nothing.
void compare_bits(const Operand& output, const std::vector<std::byte>& one, const std::vector<std::byte>& other,
                  const std::string& where, Faults& faults) {
  if (one.size() != other.size()) {
    faults.push_back(output.name + " has " + std::to_string(one.size()) + " bytes, expected " +
                     std::to_string(other.size()) + where);
    return;
  }
  const size_t element = static_cast<size_t>(size_of(output.dtype));
  const auto [at, expected] = std::mismatch(one.begin(), one.end(), other.begin());
  if (at == one.end()) return;
  const size_t index = static_cast<size_t>(at - one.begin()) / element;
  faults.push_back(element_name(output, index) + " is " +
                   number(load_element(one.data() + index * element, output.dtype)) + ", expected the bits of " +
                   number(load_element(other.data() + index * element, output.dtype)) + where);
}

Contents run_reference(const Case& test_case, const Contents& contents, Poison poison = Poison::not_a_number) {
  BoundCase bound(test_case, contents, {.wide = true, .poison = poison, .inputs_may_change = true});
  (test_case.reference ? test_case.reference : test_case.run)(bound.arguments());
  Contents results;
  for (const Operand& output : test_case.outputs) results[output.name] = bound.read(output.name);
  return results;
}

// Relative errors of the inputs, as kernel_checks.h derives them.
Contents perturbed(const Case& test_case, const Contents& contents, uint64_t draw) {
  Contents changed = contents;
  RandomStream random(draw + 1, RandomPurpose::test);
  for (const Operand& input : test_case.inputs) {
    if (!is_floating(input.dtype)) continue;
    const double sum = unit_roundoff(input.dtype == DType::f64 ? DType::f64 : DType::f32) *
                       std::sqrt(static_cast<double>(test_case.reduction));
    const double relative = std::max(unit_roundoff(input.dtype), sum);
    for (double& element : changed[input.name]) element *= 1.0 + relative * (2.0 * random.uniform() - 1.0);
  }
  return changed;
}

// For each element of each output, the worst error of plain arithmetic.
Contents plain_errors(const Case& test_case, const Contents& contents, const Contents& reference) {
  Contents errors;
  for (const Operand& output : test_case.outputs) errors[output.name].assign(reference.at(output.name).size(), 0.0);
  const auto raise = [&](const Operand& output, const std::vector<double>& results) {
    for (size_t i = 0; i < results.size(); ++i) {
      const double error = std::abs(results[i] - reference.at(output.name)[i]);
      if (error > errors[output.name][i]) errors[output.name][i] = error;
    }
  };
  if (test_case.plain) {
    BoundCase bound(test_case, contents, {.inputs_may_change = true});
    test_case.plain(bound.arguments());
    for (const Operand& output : test_case.outputs) raise(output, bound.read(output.name));
    return errors;
  }
  for (uint64_t draw = 0; draw < 4; ++draw) {
    const Contents results = run_reference(test_case, perturbed(test_case, contents, draw));
    for (const Operand& output : test_case.outputs) raise(output, results.at(output.name));
  }
  return errors;
}

// Calls body(indices of one member of the batch), or once with every index for a result of the whole batch.
void for_each_member(const Operand& output, const std::function<void(const std::vector<size_t>&)>& body) {
  const size_t count = static_cast<size_t>(output.shape.numel());
  const bool whole = output.batch == Batch::shared || output.shape.rank() == 0 || count == 0;
  const size_t extent = whole ? 1 : static_cast<size_t>(output.shape[output.batch_dimension]);
  size_t inner = whole ? std::max<size_t>(count, 1) : 1;
  if (!whole)
    for (int i = output.batch_dimension + 1; i < output.shape.rank(); ++i)
      inner *= static_cast<size_t>(output.shape[i]);
  std::vector<size_t> indices;
  for (size_t member = 0; member < extent; ++member) {
    indices.clear();
    for (size_t i = member * inner; i < count; i += extent * inner)
      for (size_t j = i; j < i + inner; ++j) indices.push_back(j);
    body(indices);
  }
}

double finite_or_zero(double value) { return std::isfinite(value) ? value : 0.0; }

void compare_member(const Case& test_case, const Operand& output, const std::vector<size_t>& indices,
                    const std::vector<double>& results, const std::vector<double>& reference,
                    const std::vector<double>& plain, Faults& faults) {
  double largest = 0, plain_error = 0;
  for (const size_t i : indices) {
    largest = std::max(largest, std::abs(finite_or_zero(reference[i])));
    plain_error = std::max(plain_error, finite_or_zero(plain[i]));
  }
  const double sum = std::sqrt(static_cast<double>(test_case.reduction));
  const double arithmetic = output.dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
  // Below the smallest normal number only absolute accuracy can be asked for.
  const double floor =
      (unit_roundoff(output.dtype) + arithmetic * sum) * largest + 0x1p-126 * unit_roundoff(output.dtype) * sum;
  const double bound = is_floating(output.dtype) ? output.factor * plain_error + floor : 0.0;
  for (const size_t i : indices) {
    const double expected = reference[i], found = results[i];
    const double rounded = round_to(output.dtype, expected);
    if (!std::isfinite(rounded) ? (std::isnan(rounded) ? std::isnan(found) : found == rounded)
                                : std::abs(found - expected) <= bound)
      continue;
    faults.push_back(element_name(output, i) + " is " + number(found) + ", the reference " + number(expected) +
                     ": error " + number(std::abs(found - expected)) + " > " + number(bound) + " = " +
                     number(output.factor) + " × " + number(plain_error) + " (plain arithmetic) + " + number(floor));
    return;
  }
}

}  // namespace

std::string Place::name() const {
  if (device.kind == DeviceKind::simt) return "simt";
  if (device.kind == DeviceKind::cuda) return "cuda";
  return isa ? "cpu_" + std::string(kernels::name_of(*isa)) : "cpu";
}

std::vector<Place> places_for(const Operation& operation) {
  std::vector<Place> places;
  for (const kernels::Isa isa : kernels::every_isa)
    if (kernels::machine_has(isa)) places.push_back({.isa = isa});
  if (operation.cuda_body) places.push_back({.device = {DeviceKind::simt}});
  if (operation.cuda_body && kernels::why_unavailable({DeviceKind::cuda}).empty())
    places.push_back({.device = {DeviceKind::cuda}});
  return places;
}

Faults matches_reference(const Operation& operation, const Case& test_case, const Place& place) {
  const PlaceScope scope(place);
  Faults faults;
  const Contents contents = make_contents(operation, test_case);
  const Contents reference = run_reference(test_case, contents);
  const Contents other = run_reference(test_case, contents, Poison::huge);
  for (const Operand& output : test_case.outputs) {
    const std::vector<double>&one = reference.at(output.name), &two = other.at(output.name);
    for (size_t i = 0; i < one.size(); ++i)
      if (std::bit_cast<uint64_t>(one[i]) != std::bit_cast<uint64_t>(two[i])) {
        faults.push_back("the reference left " + element_name(output, i) + " unwritten");
        return faults;
      }
  }
  const Contents plain = plain_errors(test_case, contents, reference);
  const Bytes bytes = run(test_case, contents, place, 2, faults);
  for (const Operand& output : test_case.outputs) {
    const std::vector<std::byte>& packed = bytes.at(output.name);
    const size_t element = static_cast<size_t>(size_of(output.dtype));
    std::vector<double> results(packed.size() / element);
    for (size_t i = 0; i < results.size(); ++i) results[i] = load_element(packed.data() + i * element, output.dtype);
    for_each_member(output, [&](const std::vector<size_t>& indices) {
      if (faults.size() < 4)
        compare_member(test_case, output, indices, results, reference.at(output.name), plain.at(output.name), faults);
    });
  }
  return faults;
}

Faults writes_everything(const Operation& operation, const Case& test_case, const Place& place) {
  const PlaceScope scope(place);
  Faults faults;
  const Contents contents = make_contents(operation, test_case);
  const Bytes one = run(test_case, contents, place, 2, faults, Poison::not_a_number);
  const Bytes other = run(test_case, contents, place, 2, faults, Poison::huge);
  for (const Operand& output : test_case.outputs)
    compare_bits(output, one.at(output.name), other.at(output.name),
                 " of a run whose outputs and workspace held other garbage: it was not written, or garbage was read",
                 faults);
  return faults;
}

Faults repeatable(const Operation& operation, const Case& test_case, const Place& place) {
  const PlaceScope scope(place);
  Faults faults;
  const Contents contents = make_contents(operation, test_case);
  const Bytes first = run(test_case, contents, place, 2, faults);
  for (const int threads : {2, 1, 3}) {
    const Bytes again = run(test_case, contents, place, threads, faults);
    for (const Operand& output : test_case.outputs)
      compare_bits(output, again.at(output.name), first.at(output.name),
                   " of the first run, with " + std::to_string(threads) + " threads instead of 2", faults);
  }
  return faults;
}

namespace {

// Members [first, first + count) alone, against their part of the whole batch's results.
void compare_part(const Case& test_case, const Contents& contents, const Place& place, const Bytes& whole,
                  int64_t first, int64_t count, int threads, Faults& faults) {
  const Case part = restrict_case(test_case, contents, first, count);
  const Bytes results = run(part, restrict_contents(test_case, contents, first, count), place, threads, faults);
  for (size_t i = 0; i < test_case.outputs.size(); ++i) {
    const Operand& output = test_case.outputs[i];
    if (output.batch == Batch::shared) continue;
    // Bits are picked by index, so that NaN payloads and signs of zero are compared too.
    std::vector<double> positions(static_cast<size_t>(output.shape.numel()));
    for (size_t p = 0; p < positions.size(); ++p) positions[p] = static_cast<double>(p);
    const size_t element = static_cast<size_t>(size_of(output.dtype));
    std::vector<std::byte> expected;
    for (const double position : restrict_operand(output, positions, test_case, contents, first, count)) {
      const auto at = whole.at(output.name).begin() + static_cast<int64_t>(static_cast<size_t>(position) * element);
      expected.insert(expected.end(), at, at + static_cast<int64_t>(element));
    }
    compare_bits(part.outputs[i], results.at(output.name), expected,
                 " that the whole batch gave: members " + std::to_string(first) + " to " +
                     std::to_string(first + count - 1) + " run alone, " + std::to_string(threads) + " threads",
                 faults);
  }
}

// Results of the whole batch that accumulate: one member after another gives the bits of all at once.
void compare_accumulated(const Case& test_case, Contents contents, const Place& place, const Bytes& whole,
                         Faults& faults) {
  const int64_t members = batch_size(test_case, contents);
  const Contents start = contents;
  Bytes results;
  for (int64_t member = 0; member < members; ++member) {
    const Case part = restrict_case(test_case, start, member, 1);
    results = run(part, restrict_contents(test_case, contents, member, 1), place, 1, faults);
    for (const Operand& output : test_case.outputs) {
      if (!output.accumulates || output.batch != Batch::shared) continue;
      std::vector<double>& carried = contents[output.name];
      const size_t element = static_cast<size_t>(size_of(output.dtype));
      for (size_t i = 0; i < carried.size(); ++i)
        carried[i] = load_element(results.at(output.name).data() + i * element, output.dtype);
    }
  }
  for (const Operand& output : test_case.outputs)
    if (output.accumulates && output.batch == Batch::shared)
      compare_bits(output, results.at(output.name), whole.at(output.name),
                   " that the whole batch gave: its " + std::to_string(members) + " members accumulated one by one",
                   faults);
}

}  // namespace

Faults batch_invariant(const Operation& operation, const Case& test_case, const Place& place) {
  const PlaceScope scope(place);
  Faults faults;
  const Contents contents = make_contents(operation, test_case);
  const int64_t members = batch_size(test_case, contents);
  const Bytes whole = run(test_case, contents, place, 2, faults);
  if (members < 2) return faults;
  for (const int64_t member : {int64_t{0}, int64_t{1}, members / 2, members - 1})
    compare_part(test_case, contents, place, whole, member, 1, 1, faults);
  compare_part(test_case, contents, place, whole, 0, members - 1, 3, faults);
  compare_part(test_case, contents, place, whole, 1, members - 1, 2, faults);
  const bool sequences = std::any_of(test_case.inputs.begin(), test_case.inputs.end(),
                                     [](const Operand& input) { return input.batch == Batch::bounds; });
  const bool accumulates = std::any_of(test_case.outputs.begin(), test_case.outputs.end(), [](const Operand& output) {
    return output.accumulates && output.batch == Batch::shared;
  });
  if (sequences && accumulates) compare_accumulated(test_case, contents, place, whole, faults);
  return faults;
}

Faults any_fiber_order(const Operation& operation, const Case& test_case, const Place& place) {
  const PlaceScope scope(place);
  Faults faults;
  const Contents contents = make_contents(operation, test_case);
  const Bytes first = run(test_case, contents, place, 2, faults);
  constexpr uint64_t seed = 20240607;
  const std::pair<simt::FiberOrder, std::string> orders[] = {
      {simt::FiberOrder::descending, "descending threads"},
      {simt::FiberOrder::shuffled, "threads shuffled with seed " + std::to_string(seed)}};
  for (const auto& [order, name] : orders) {
    simt::set_fiber_order(order, seed);
    const Bytes again = run(test_case, contents, place, 2, faults);
    simt::set_fiber_order(simt::FiberOrder::ascending);
    for (const Operand& output : test_case.outputs)
      compare_bits(output, again.at(output.name), first.at(output.name), " of ascending threads, under " + name,
                   faults);
  }
  return faults;
}

}  // namespace lathe::testing
