#include "train/report.h"

#include <algorithm>
#include <set>

#include "core/atomic_write.h"
#include "train/line_plot.h"
#include "train/metrics_log.h"

namespace lathe::train {
namespace {

constexpr const char* style = R"(
:root { --ground:#fff; --ink:#1c2128; --soft:#6b7280; --line:#e5e7eb; --panel:#f8f9fb; --s0:#2563eb; --s1:#d97706; }
@media (prefers-color-scheme: dark) {
  :root { --ground:#14171c; --ink:#e6e8eb; --soft:#9aa3af; --line:#2c323b; --panel:#1b1f26; --s0:#7aa8ff; --s1:#f5b754; } }
body { background:var(--ground); color:var(--ink); font:15px/1.5 system-ui,sans-serif; margin:2rem auto; max-width:1180px; padding:0 1rem }
h1 { font-size:1.5rem; margin-bottom:.2rem } h2 { font-size:1.1rem; margin-top:2.2rem }
.facts { display:flex; flex-wrap:wrap; gap:.8rem 2.2rem; margin:1rem 0 }
.facts div span { display:block; color:var(--soft); font-size:.8rem }
.plots { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr)); gap:1rem }
.plots > div { background:var(--panel); border:1px solid var(--line); border-radius:8px; padding:.6rem }
svg { width:100%; display:block } svg text { font:11px system-ui,sans-serif; fill:var(--soft) }
svg .grid { stroke:var(--line) } svg polyline { fill:none; stroke-width:1.6 }
svg polyline.s0 { stroke:var(--s0) } svg polyline.s1 { stroke:var(--s1) }
svg circle { fill:transparent } svg circle.s0:hover, svg circle.mark.s0 { fill:var(--s0) }
svg circle.s1:hover, svg circle.mark.s1 { fill:var(--s1) }
svg text.legend { font-size:13px; font-weight:600 } svg text.legend.s0 { fill:var(--s0) } svg text.legend.s1 { fill:var(--s1) }
pre, .sample { background:var(--panel); border:1px solid var(--line); border-radius:8px; padding:.8rem; overflow-x:auto;
  font:13px/1.45 ui-monospace,monospace; white-space:pre-wrap; overflow-wrap:anywhere }
.sample { margin:.6rem 0 } .sample b { color:var(--s0); font-weight:600 } .sample i { color:var(--soft); font-style:normal }
.sample u { display:block; color:var(--s1); text-decoration:none }
)";

// One metric over the steps, from the lines that have it.
PlotLine line_of(const std::vector<LoggedLine>& lines, const std::string& name, bool dots = false) {
  PlotLine line{name, {}, dots};
  for (const LoggedLine& logged : lines)
    for (const auto& [metric, value] : logged.metrics)
      if (metric == name) line.points.emplace_back(static_cast<double>(logged.step), value);
  return line;
}

// Every metric that was logged, what one looks for first in front. An evaluation lies in the plot of what it measures.
std::vector<std::string> plotted(const std::vector<LoggedLine>& lines) {
  std::vector<std::string> names = {"loss",           "reward",           "rewards/margins",     "rewards/accuracies",
                                    "rewards/chosen", "rewards/rejected", "mean_token_accuracy", "learning_rate",
                                    "grad_norm",      "entropy"};
  std::set<std::string> seen(names.begin(), names.end());
  seen.insert({"epoch", "num_tokens"});  // these grow with the steps, whatever happens
  for (const LoggedLine& line : lines)
    for (const auto& [metric, value] : line.metrics) {
      const std::string name = metric.starts_with("eval_") ? metric.substr(5) : metric;
      if (seen.insert(name).second) names.push_back(name);
    }
  return names;
}

// "learning rate" of learning_rate.
std::string title_of(std::string name) {
  if (name == "grad_norm") return "gradient norm";
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::string plots(const std::filesystem::path& output_dir) {
  const auto metrics = read_metrics(output_dir / "metrics.jsonl"), timings = read_metrics(output_dir / "timings.jsonl");
  std::string html;
  const auto add = [&](const std::string& title, const std::vector<PlotLine>& lines) {
    const std::string plot = line_plot(title, "step", lines);
    if (!plot.empty()) html += "<div>" + plot + "</div>\n";
  };
  for (const std::string& name : plotted(metrics))
    add(title_of(name), {line_of(metrics, name), line_of(metrics, "eval_" + name, true)});
  add("tokens per second", {line_of(timings, "tokens_per_second")});
  return html.empty() ? "<p>No step has been logged yet.</p>" : "<div class='plots'>\n" + html + "</div>";
}

std::string section(const std::string& heading, const std::string& body) {
  return body.empty() ? "" : "<h2>" + heading + "</h2>\n" + body + "\n";
}

std::string preformatted(const std::string& text) { return text.empty() ? "" : "<pre>" + html_text(text) + "</pre>"; }

}  // namespace

void write_report(const std::filesystem::path& output_dir, const ReportContents& contents) {
  std::string facts, samples;
  for (const auto& [name, value] : contents.facts)
    facts += "<div><span>" + html_text(name) + "</span>" + html_text(value) + "</div>\n";
  for (const SampleRow& row : contents.samples)
    samples += "<div class='sample'><i>" + html_text(row.context) + "</i><b>" + html_text(row.learnt) + "</b>" +
               (row.note.empty() ? "" : "<u>" + html_text(row.note) + "</u>") + "</div>\n";
  std::string html =
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
      "<meta name='viewport' content='width=device-width'><title>" +
      html_text(contents.title) + "</title><style>" + style + "</style></head><body>\n<h1>" +
      html_text(contents.title) + "</h1>\n<div class='facts'>\n" + facts + "</div>\n" + plots(output_dir) + "\n";
  html += section(contents.samples_heading, samples);
  html += section("Memory", preformatted(contents.memory_table));
  html += section("Configuration", preformatted(contents.config_yaml));
  write_file_atomically(output_dir / "report.html", html + "</body></html>\n");
}

}  // namespace lathe::train
