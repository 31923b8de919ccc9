#include "tests/support/operation_cases.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include "tests/support/operation_run.h"

namespace lathe::testing {

Generator normal(double scale) {
  return [scale](RandomStream& random, int64_t) { return scale * random.normal(); };
}
Generator uniform(double low, double high) {
  return [=](RandomStream& random, int64_t) { return low + (high - low) * random.uniform(); };
}
Generator integers(int64_t low, int64_t high) {
  return [=](RandomStream& random, int64_t) {
    return static_cast<double>(low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1))));
  };
}
Generator values(std::vector<double> listed) {
  return [listed = std::move(listed)](RandomStream&, int64_t index) {
    return listed[static_cast<size_t>(index) % listed.size()];
  };
}
Generator constant(double value) {
  return [value](RandomStream&, int64_t) { return value; };
}
Generator extremes(int exponent, int low_exponent) {
  return [=](RandomStream& random, int64_t) {
    const double sign = random.next_u32() & 1u ? -1.0 : 1.0;
    switch (random.below(8)) {
      case 0: return sign * 0.0;
      case 1: return sign * 0x1.8p-130;
      default:
        return sign * std::exp2(-low_exponent + (exponent + low_exponent) * static_cast<double>(random.uniform()));
    }
  };
}
Generator computed() { return constant(0.0); }

Operand sequence_bounds(const std::vector<double>& cu_seqlens) {
  return {.name = "cu_seqlens",
          .shape = {static_cast<int64_t>(cu_seqlens.size())},
          .dtype = DType::i32,
          .values = values(cu_seqlens),
          .batch = Batch::bounds,
          .on_cpu = true};
}

const Tensor& Arguments::operator[](std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw std::out_of_range("the case has no tensor named '" + std::string(name) + "'");
  return found->second;
}

double load_element(const std::byte* element, DType dtype) {
  const auto as = [element]<class T>(T value) {
    std::memcpy(&value, element, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::f32: return as(float{});
    case DType::f64: return as(double{});
    case DType::bf16: return static_cast<float>(as(bf16{}));
    case DType::f16: return static_cast<float>(as(f16{}));
    case DType::i64: return static_cast<double>(as(int64_t{}));
    case DType::i32: return as(int32_t{});
    case DType::u32: return as(uint32_t{});
    case DType::u16: return as(uint16_t{});
    case DType::i8: return as(int8_t{});
    case DType::u8:
    case DType::boolean: return as(uint8_t{});
  }
  return 0;
}

namespace {

// f64 to a 16-bit float through f32, rounding to odd on the way so that the result is rounded once.
float round_to_odd(double value) {
  float nearest = static_cast<float>(value);
  if (!std::isfinite(nearest) || static_cast<double>(nearest) == value) return nearest;
  if ((std::bit_cast<uint32_t>(nearest) & 1u) == 0)
    nearest = std::nextafterf(nearest, static_cast<double>(nearest) < value ? HUGE_VALF : -HUGE_VALF);
  return nearest;
}

}  // namespace

void store_element(std::byte* element, DType dtype, double value) {
  const auto put = [element](auto stored) { std::memcpy(element, &stored, sizeof stored); };
  switch (dtype) {
    case DType::f32: return put(static_cast<float>(value));
    case DType::f64: return put(value);
    case DType::bf16: return put(bf16(round_to_odd(value)));
    case DType::f16: return put(f16(round_to_odd(value)));
    case DType::i64: return put(static_cast<int64_t>(value));
    case DType::i32: return put(static_cast<int32_t>(value));
    case DType::u32: return put(static_cast<uint32_t>(value));
    case DType::u16: return put(static_cast<uint16_t>(value));
    case DType::i8: return put(static_cast<int8_t>(value));
    case DType::u8:
    case DType::boolean: return put(static_cast<uint8_t>(value));
  }
}

double round_to(DType dtype, double value) {
  std::byte element[8];
  store_element(element, dtype, value);
  return load_element(element, dtype);
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64: return 0x1p-53;
    case DType::f32: return 0x1p-24;
    case DType::f16: return 0x1p-11;
    case DType::bf16: return 0x1p-8;
    default: return 0;
  }
}

namespace {

uint64_t seed_of(const std::string& operation, const std::string& test_case, const std::string& operand) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const std::string& part : {operation, test_case, operand})
    for (const char c : part + "/") hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

const Operand* bounds_of(const Case& test_case) {
  for (const Operand& operand : test_case.inputs)
    if (operand.batch == Batch::bounds) return &operand;
  return nullptr;
}

struct Range {
  int64_t begin, end;
};

// Along the operand's batch dimension, the part that belongs to members [first, first + count).
Range members(const Operand& operand, const Case& test_case, const Contents& contents, int64_t first, int64_t count) {
  const Operand* bounds = bounds_of(test_case);
  if (bounds == nullptr || operand.batch == Batch::sequences) return {first, first + count};
  const std::vector<double>& cut = contents.at(bounds->name);
  return {static_cast<int64_t>(cut[static_cast<size_t>(first)]),
          static_cast<int64_t>(cut[static_cast<size_t>(first + count)])};
}

}  // namespace

namespace {

// `period`: of floating operands, and of those that may repeat, only so many elements.
Contents generate_contents(const Operation& operation, const Case& test_case, Prepared prepared, size_t period) {
  Contents contents;
  const auto generate = [&](const Operand& operand) {
    RandomStream random(seed_of(operation.name, test_case.name, operand.name), RandomPurpose::test);
    std::vector<double>& elements = contents[operand.name];
    const auto count = static_cast<size_t>(operand.shape.numel());
    elements.resize(is_floating(operand.dtype) || operand.may_repeat ? std::min(period, count) : count);
    for (size_t i = 0; i < elements.size(); ++i)
      elements[i] = round_to(operand.dtype, operand.values(random, static_cast<int64_t>(i)));
  };
  for (const Operand& operand : test_case.inputs) generate(operand);
  for (const Operand& operand : test_case.outputs)
    if (operand.accumulates) generate(operand);
  if (test_case.prepare) {
    BoundCase bound(test_case, contents, {.wide = true, .inputs_may_change = true});
    test_case.prepare(bound.arguments());
    for (const Operand& operand : test_case.inputs) {
      std::vector<double>& elements = contents[operand.name];
      elements = bound.read(operand.name);
      if (prepared == Prepared::exact) continue;
      for (double& element : elements) element = round_to(operand.dtype, element);
    }
  }
  return contents;
}

}  // namespace

Contents make_contents(const Operation& operation, const Case& test_case, Prepared prepared) {
  return generate_contents(operation, test_case, prepared, SIZE_MAX);
}

Contents make_repeating_contents(const Operation& operation, const Case& test_case) {
  constexpr size_t period = 99991;  // a prime: rows differ
  return generate_contents(operation, test_case, Prepared::rounded, period);
}

int64_t batch_size(const Case& test_case, const Contents&) {
  if (const Operand* bounds = bounds_of(test_case)) return bounds->shape.numel() - 1;
  for (const Operand& operand : test_case.inputs)
    if (operand.batch != Batch::shared) return operand.shape[operand.batch_dimension];
  return 1;
}

Case restrict_case(const Case& test_case, const Contents& contents, int64_t first, int64_t count) {
  Case part = test_case;
  const auto shrink = [&](Operand& operand) {
    if (operand.batch == Batch::shared) return;
    std::vector<int64_t> extents(operand.shape.dims().begin(), operand.shape.dims().end());
    if (operand.batch == Batch::bounds) {
      extents[0] = count + 1;
    } else {
      const Range range = members(operand, test_case, contents, first, count);
      extents[static_cast<size_t>(operand.batch_dimension)] = range.end - range.begin;
    }
    operand.shape = Shape(std::span<const int64_t>(extents));
  };
  for (Operand& operand : part.inputs) shrink(operand);
  for (Operand& operand : part.outputs) shrink(operand);
  return part;
}

std::vector<double> restrict_operand(const Operand& operand, const std::vector<double>& all, const Case& test_case,
                                     const Contents& contents, int64_t first, int64_t count) {
  if (operand.batch == Batch::shared) return all;
  if (operand.batch == Batch::bounds) {
    std::vector<double> cut(all.begin() + first, all.begin() + first + count + 1);
    const double start = cut.front();
    for (double& bound : cut) bound -= start;
    return cut;
  }
  const Range range = members(operand, test_case, contents, first, count);
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < operand.batch_dimension; ++i) outer *= operand.shape[i];
  for (int i = operand.batch_dimension + 1; i < operand.shape.rank(); ++i) inner *= operand.shape[i];
  const int64_t extent = operand.shape[operand.batch_dimension];
  std::vector<double> part;
  part.reserve(static_cast<size_t>(outer * (range.end - range.begin) * inner));
  for (int64_t o = 0; o < outer; ++o)
    part.insert(part.end(), all.begin() + (o * extent + range.begin) * inner,
                all.begin() + (o * extent + range.end) * inner);
  return part;
}

Contents restrict_contents(const Case& test_case, const Contents& contents, int64_t first, int64_t count) {
  Contents part;
  for (const auto* operands : {&test_case.inputs, &test_case.outputs})
    for (const Operand& operand : *operands)
      if (const auto found = contents.find(operand.name); found != contents.end())
        part[operand.name] = restrict_operand(operand, found->second, test_case, contents, first, count);
  return part;
}

}  // namespace lathe::testing
