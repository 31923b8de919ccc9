// A line plot as inline SVG: no script, no font, nothing to fetch. Colours come from the page's CSS variables.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lathe::train {

struct PlotLine {
  std::string name;
  std::vector<std::pair<double, double>> points;  // (x, y), x ascending; what is not finite is left out
  bool dots = false;                              // few points: mark each
};

// Empty when no line has a point. Each point's value shows when the pointer rests on it.
std::string line_plot(const std::string& title, const std::string& x_name, const std::vector<PlotLine>& lines);

// &, <, > and quotes made harmless.
std::string html_text(std::string_view text);

// "Nice" tick positions (1, 2 or 5 × a power of ten) within [low, high], about `wanted` of them.
std::vector<double> ticks(double low, double high, int wanted);

}  // namespace lathe::train
