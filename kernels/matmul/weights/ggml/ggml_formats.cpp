#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels {
namespace {

constexpr struct {
  GgmlFormat format;
  std::string_view name;
} names[] = {{GgmlFormat::q4_0, "Q4_0"},   {GgmlFormat::q4_1, "Q4_1"},       {GgmlFormat::q5_0, "Q5_0"},
             {GgmlFormat::q5_1, "Q5_1"},   {GgmlFormat::q8_0, "Q8_0"},       {GgmlFormat::q4_k, "Q4_K"},
             {GgmlFormat::q5_k, "Q5_K"},   {GgmlFormat::q6_k, "Q6_K"},       {GgmlFormat::q2_k, "Q2_K"},
             {GgmlFormat::q3_k, "Q3_K"},   {GgmlFormat::iq4_nl, "IQ4_NL"},   {GgmlFormat::iq4_xs, "IQ4_XS"},
             {GgmlFormat::mxfp4, "MXFP4"}, {GgmlFormat::iq2_xxs, "IQ2_XXS"}, {GgmlFormat::iq2_xs, "IQ2_XS"},
             {GgmlFormat::iq2_s, "IQ2_S"}, {GgmlFormat::iq3_xxs, "IQ3_XXS"}, {GgmlFormat::iq3_s, "IQ3_S"},
             {GgmlFormat::iq1_s, "IQ1_S"}, {GgmlFormat::iq1_m, "IQ1_M"}};

}  // namespace

std::optional<GgmlFormat> ggml_format(std::string_view ggml_type) {
  for (const auto& [format, name] : names)
    if (name == ggml_type) return format;
  return std::nullopt;
}

std::string_view name_of(GgmlFormat format) {
  for (const auto& entry : names)
    if (entry.format == format) return entry.name;
  return "?";
}

}  // namespace lathe::kernels
