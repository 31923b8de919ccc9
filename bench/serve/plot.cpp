#include "bench/serve/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "train/line_plot.h"

namespace lathe::bench {
namespace {

constexpr double width = 300, height = 200, margin_left = 44, margin_top = 34, step_x = 360, legend_step = 18;
constexpr size_t most_points = 200;  // of a line
constexpr std::array colours{"#0072b2", "#d55e00", "#009e73", "#cc79a7"};

// Powers of ten, in seconds, that hold all values.
struct Decades {
  int first = -3, last = 0;
};
Decades decades_of(const std::vector<ServerLatencies>& servers, std::vector<double> ServerLatencies::*values) {
  double least = INFINITY, most = 0;
  for (const ServerLatencies& server : servers)
    for (const double value : server.*values) {
      least = std::min(least, std::max(value, 1e-6));
      most = std::max(most, value);
    }
  if (most <= 0) return {};
  const int first = static_cast<int>(std::floor(std::log10(least)));
  return {first, std::max(first + 1, static_cast<int>(std::ceil(std::log10(most))))};
}

std::string axes(const char* title, const Decades& decades, double left) {
  std::string text = fmt::format("<text x=\"{:.0f}\" y=\"20\" class=\"title\">{}</text>\n", left, title);
  for (int quarter = 0; quarter <= 4; ++quarter) {
    const double y = margin_top + height * (1 - quarter / 4.0);
    text += fmt::format(
        "<path d=\"M{:.0f} {:.0f}h{:.0f}\" class=\"grid\"/>"
        "<text x=\"{:.0f}\" y=\"{:.0f}\" class=\"left\">{} %</text>\n",
        left, y, width, left - 4, y + 4, 25 * quarter);
  }
  for (int power = decades.first; power <= decades.last; ++power) {
    const double x = left + width * (power - decades.first) / (decades.last - decades.first);
    const std::string name =
        power < 0 ? fmt::format("{:g} ms", std::pow(10, power + 3)) : fmt::format("{:g} s", std::pow(10, power));
    text += fmt::format(
        "<path d=\"M{:.1f} {:.0f}v{:.0f}\" class=\"grid\"/><text x=\"{:.1f}\" y=\"{:.0f}\" class=\"below\">{}</text>\n",
        x, margin_top, height, x, margin_top + height + 16, name);
  }
  return text;
}

std::string line(std::vector<double> values, const Decades& decades, double left, const char* colour) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  std::string points;
  const size_t count = std::min(values.size(), most_points);
  for (size_t i = 1; i <= count; ++i) {
    const size_t rank = values.size() * i / count;
    const double power = std::log10(std::max(values[rank - 1], 1e-6));
    points += fmt::format("{:.1f},{:.1f} ", left + width * (power - decades.first) / (decades.last - decades.first),
                          margin_top + height * (1 - static_cast<double>(rank) / static_cast<double>(values.size())));
  }
  return fmt::format("<polyline points=\"{}\" stroke=\"{}\"/>\n", points, colour);
}

}  // namespace

std::string latency_plot(const std::vector<ServerLatencies>& servers) {
  const double bottom = margin_top + height + 32;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<style>text{{fill:#333}}.title{{font-weight:bold}}.left{{text-anchor:end}}"
      ".below{{text-anchor:middle}}.grid{{stroke:#ddd}}polyline{{fill:none;stroke-width:2}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      margin_left + 3 * step_x, bottom + legend_step * static_cast<double>(servers.size()));
  double left = margin_left;
  for (const auto& [title, values] : {std::pair{"to the first token", &ServerLatencies::first_token},
                                      {"between tokens", &ServerLatencies::between_tokens},
                                      {"to the last token", &ServerLatencies::last_token}}) {
    const Decades decades = decades_of(servers, values);
    svg += axes(title, decades, left);
    for (size_t i = 0; i < servers.size(); ++i)
      svg += line(servers[i].*values, decades, left, colours[i % colours.size()]);
    left += step_x;
  }
  for (size_t i = 0; i < servers.size(); ++i) {
    const double y = bottom + legend_step * static_cast<double>(i);
    svg += fmt::format(
        "<path d=\"M{:.0f} {:.0f}h20\" stroke=\"{}\" stroke-width=\"3\"/><text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n",
        margin_left, y, colours[i % colours.size()], margin_left + 28, y + 4, train::html_text(servers[i].url));
  }
  return svg + "</svg>\n";
}

}  // namespace lathe::bench
