#include "train/line_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace lathe::train {
namespace {

constexpr double width = 560, height = 230, left = 58, right = 12, top = 30, bottom = 34;
constexpr size_t most_dots = 300;  // pointer targets; more would only make the file large

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void widen() {
    const double span = high - low;
    const double margin = span > 0 ? 0.05 * span : std::max(std::fabs(high) * 0.1, 1e-12);
    high += margin;
    low = low >= 0 && low - margin < 0 ? 0 : low - margin;  // what cannot be negative does not look it
  }
};

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string coordinate(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

class Canvas {
 public:
  Canvas(Range x, Range y) : x_(x), y_(y) {}
  double across(double x) const { return left + (x - x_.low) / (x_.high - x_.low) * (width - left - right); }
  double down(double y) const { return height - bottom - (y - y_.low) / (y_.high - y_.low) * (height - top - bottom); }

  std::string axes(const std::string& x_name) const {
    std::string svg;
    for (const double tick : ticks(y_.low, y_.high, 5)) {
      const std::string at = coordinate(down(tick));
      svg += "<line class='grid' x1='" + coordinate(left) + "' x2='" + coordinate(width - right) + "' y1='" + at +
             "' y2='" + at + "'/><text class='tick' text-anchor='end' x='" + coordinate(left - 6) + "' y='" +
             coordinate(down(tick) + 3.5) + "'>" + number(tick) + "</text>";
    }
    for (const double tick : ticks(x_.low, x_.high, 7))
      svg += "<text class='tick' text-anchor='middle' x='" + coordinate(across(tick)) + "' y='" +
             coordinate(height - bottom + 15) + "'>" + number(tick) + "</text>";
    return svg + "<text class='tick' text-anchor='end' x='" + coordinate(width - right) + "' y='" +
           coordinate(height - 4) + "'>" + html_text(x_name) + "</text>";
  }

  std::string line(const PlotLine& line, size_t index) const {
    std::string points;
    for (const auto& [x, y] : line.points)
      if (std::isfinite(y)) points += coordinate(across(x)) + "," + coordinate(down(y)) + " ";
    const std::string series = "s" + std::to_string(index);
    std::string svg = "<polyline class='" + series + "' points='" + points + "'/>";
    const size_t stride = std::max<size_t>(1, line.points.size() / most_dots);
    for (size_t i = 0; i < line.points.size(); i += stride) {
      const auto& [x, y] = line.points[i];
      if (!std::isfinite(y)) continue;
      svg += "<circle class='" + series + (line.dots ? " mark" : "") + "' cx='" + coordinate(across(x)) + "' cy='" +
             coordinate(down(y)) + "' r='" + (line.dots ? "3" : "4") + "'><title>" + html_text(line.name) + " " +
             number(y) + " at " + number(x) + "</title></circle>";
    }
    return svg;
  }

 private:
  Range x_, y_;
};

}  // namespace

std::string html_text(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

std::vector<double> ticks(double low, double high, int wanted) {
  const double rough = (high - low) / wanted;
  if (!(rough > 0) || !std::isfinite(rough)) return {};
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) {
      step = factor * power;
      break;
    }
  std::vector<double> result;
  for (auto i = static_cast<int64_t>(std::ceil(low / step)); static_cast<double>(i) * step <= high; ++i)
    result.push_back(static_cast<double>(i) * step);
  return result;
}

std::string line_plot(const std::string& title, const std::string& x_name, const std::vector<PlotLine>& lines) {
  Range x, y;
  for (const PlotLine& line : lines)
    for (const auto& [at, value] : line.points) {
      if (!std::isfinite(value)) continue;
      x.add(at);
      y.add(value);
    }
  if (!(x.low <= x.high)) return {};
  if (x.low == x.high) x.high += 1;
  y.widen();
  const Canvas canvas(x, y);
  std::string svg = "<svg viewBox='0 0 " + coordinate(width) + " " + coordinate(height) + "' role='img' aria-label='" +
                    html_text(title) + "'>" + canvas.axes(x_name);
  double legend = left;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].points.empty()) continue;
    svg += canvas.line(lines[i], i) + "<text class='legend s" + std::to_string(i) + "' x='" + coordinate(legend) +
           "' y='16'>" + html_text(lines[i].name) + "</text>";
    legend += 9.0 * static_cast<double>(lines[i].name.size()) + 18;
  }
  return svg + "</svg>";
}

}  // namespace lathe::train
