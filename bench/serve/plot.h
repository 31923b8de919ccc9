// Latencies of servers side by side as a picture.
#pragma once

#include <string>
#include <vector>

namespace lathe::bench {

struct ServerLatencies {
  std::string url;
  std::vector<double> first_token, between_tokens, last_token;  // seconds, in any order
};

// SVG: for each kind of latency the share of answers (or gaps) that came within a time, a line for each server. Time is
// logarithmic.
std::string latency_plot(const std::vector<ServerLatencies>& servers);

}  // namespace lathe::bench
