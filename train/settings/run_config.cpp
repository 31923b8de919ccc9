#include "train/settings/run_config.h"

#include <algorithm>
#include <cctype>

namespace lathe::train {

nn::LoraConfig lora_config(const RunConfig& config) {
  nn::LoraConfig lora;
  lora.r = config.lora_r;
  lora.lora_alpha = config.lora_alpha;
  lora.lora_dropout = config.lora_dropout;
  lora.use_rslora = config.use_rslora;
  lora.base_model_name_or_path = config.model;
  const std::string& targets = config.lora_target_modules;
  const bool names = targets != "all-linear" && std::all_of(targets.begin(), targets.end(), [](unsigned char c) {
                       return std::isalnum(c) != 0 || c == '_' || c == '.' || c == ',';
                     });
  if (!names) {
    lora.target_modules_regex = targets;
    return lora;
  }
  for (size_t begin = 0; begin <= targets.size();) {
    const size_t end = std::min(targets.find(',', begin), targets.size());
    if (end > begin) lora.target_modules.push_back(targets.substr(begin, end - begin));
    begin = end + 1;
  }
  return lora;
}

}  // namespace lathe::train
