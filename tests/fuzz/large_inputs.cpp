#include "tests/fuzz/large_inputs.h"

#include <cstring>

namespace lathe::fuzz {
namespace {

constexpr int levels = 100'000;

std::string repeated(std::string_view text, int count) {
  std::string all;
  all.reserve(text.size() * static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

std::string deep_lists() { return repeated("[", levels) + repeated("]", levels); }
std::string deep_objects() { return repeated(R"({"a":)", levels) + "1" + repeated("}", levels); }

// {"k0":VALUE,"k1":VALUE,…}
std::string many_keys(int count, std::string_view value) {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += (i > 0 ? ",\"k" : "\"k") + std::to_string(i) + "\":" + std::string(value);
  return text + "}";
}

std::string with_header(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + std::string(data_bytes, '\0');
}

std::string many_tensors(int count) {
  std::string header = "{";
  for (int i = 0; i < count; ++i)
    header += (i > 0 ? ",\"t" : "\"t") + std::to_string(i) + R"(":{"dtype":"F32","shape":[1],"data_offsets":[)" +
              std::to_string(4 * i) + "," + std::to_string(4 * i + 4) + "]}";
  return with_header(header + "}", 4 * static_cast<size_t>(count));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> large_inputs(std::string_view target) {
  const std::string llama = R"({"model_type":"llama","vocab_size":8,"hidden_size":8,"intermediate_size":8,)"
                            R"("num_hidden_layers":1,"num_attention_heads":1,"max_position_embeddings":8)";
  if (target == "json")
    return {{"deep lists", deep_lists()}, {"deep objects", deep_objects()}, {"many keys", many_keys(60'000, "1")}};
  if (target == "model_config")
    return {{"deep unknown key", llama + R"(,"x":)" + deep_lists() + "}"},
            {"deep known key", llama + R"(,"eos_token_id":)" + deep_lists() + "}"},
            {"deep rope_scaling", llama + R"(,"rope_scaling":)" + deep_objects() + "}"},
            {"deep and unfinished", llama + R"(,"x":)" + repeated("[", levels)}};
  if (target == "generation_config") return {{"deep", R"({"eos_token_id":)" + deep_lists() + "}"}};
  if (target == "safetensors_index")
    return {{"deep", R"({"weight_map":)" + deep_objects() + "}"},
            {"deep name", R"({"weight_map":{"a":)" + deep_lists() + "}}"},
            {"many names", R"({"weight_map":)" + many_keys(60'000, "\"shard.safetensors\"") + "}"}};
  if (target == "safetensors")
    return {
        {"deep shape", with_header(R"({"a":{"dtype":"F32","shape":)" + deep_lists() + R"(,"data_offsets":[0,4]}})", 4)},
        {"many tensors", many_tensors(60'000)}};
  if (target == "adapter_config")
    return {{"deep modules_to_save", R"({"peft_type":"LORA","r":2,"modules_to_save":)" + deep_lists() + "}"},
            {"deep target_modules", R"({"peft_type":"LORA","r":2,"target_modules":)" + deep_lists() + "}"},
            {"parentheses in a rank_pattern",
             R"({"peft_type":"LORA","r":2,"target_modules":["q_proj","up_proj"],"rank_pattern":{")" +
                 repeated("(", 50'000) + "q" + repeated(")", 50'000) + R"(":4}})"},
            {"parentheses in target_modules", R"({"peft_type":"LORA","r":2,"target_modules":")" +
                                                  repeated("(", 50'000) + "q" + repeated(")", 50'000) + R"("})"}};
  if (target == "tokenizer")
    return {{"deep normalizer",
             R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"normalizer":)" + deep_lists() + "}"},
            {"deep sequence", R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"normalizer":)" +
                                  repeated(R"({"type":"Sequence","normalizers":[)", levels) + repeated("]}", levels) +
                                  "}"}};
  if (target == "tokenizer_config")
    return {{"deep", R"({"bos_token":)" + deep_lists() + "}"}, {"many keys", many_keys(60'000, "1")}};
  if (target == "chat_template")
    return {{"deep parentheses", "{{ " + repeated("(", levels) + "1" + repeated(")", levels) + " }}"},
            {"deep lists", "{{ " + repeated("[", levels) + repeated("]", levels) + " }}"},
            {"deep blocks", repeated("{% if 1 %}", levels) + repeated("{% endif %}", levels)},
            {"long sum", "{{ 1" + repeated("+1", levels) + " }}"},
            {"long chain of attributes", "{{ a" + repeated(".a", levels) + " }}"},
            {"many nots", "{{ " + repeated("not ", levels) + "1 }}"},
            {"many minus signs", "{{ " + repeated("- ", levels) + "1 }}"},
            {"long chain of filters", "{{ 'a'" + repeated("|trim", levels) + " }}"},
            {"long chain of elif", "{% if 0 %}" + repeated("{% elif 0 %}", levels) + "{% endif %}"}};
  if (target == "rows")
    return {{"row of many keys", many_keys(60'000, "1") + "\n"},
            {"deep row", R"({"text":)" + deep_lists() + "}\n"},
            {"deep tools", R"({"messages":[{"role":"user","content":"a"}],"tools":)" + deep_lists() + "}\n"}};
  if (target == "yaml_config")
    return {{"deep lists", "a: " + deep_lists()},
            {"deep mappings", "a: " + repeated("{a: ", levels) + "1" + repeated("}", levels)},
            {"deep sequences of dashes", repeated("- ", levels) + "1"},
            {"deep and unfinished", "a: " + repeated("[", levels)}};
  if (target == "manifest") return {{"deep", deep_objects()}, {"deep files", R"({"files":)" + deep_objects() + "}"}};
  if (target == "metrics") return {{"deep line", R"({"step":1,"a":)" + deep_lists() + "}\n"}};
  return {};
}

}  // namespace lathe::fuzz
