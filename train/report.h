// report.html: what a run was and how it went, in one file that opens without a network.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace lathe::train {

struct SampleRow {
  std::string context, learnt;  // decoded: what the model reads, and what it is to say
  std::string note = {};        // what is said of it: its rewards
};

struct ReportContents {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;  // name, value: the model, rows, steps, speed
  std::string config_yaml;
  std::string memory_table;
  std::string samples_heading = "Rows as the model sees them (what it learns is coloured)";
  std::vector<SampleRow> samples;
};

// Plots come from metrics.jsonl and timings.jsonl in output_dir, so that a resumed run shows all of its steps, and a
// method whatever it logs. Written aside and renamed.
void write_report(const std::filesystem::path& output_dir, const ReportContents& contents);

}  // namespace lathe::train
