// tokenizer_config.json and special_tokens_map.json, of the same bytes, beside a good tokenizer.json.
#include "data/tokenizer/tokenizer_config.h"

#include "core/error.h"
#include "data/chat_template/chat_template.h"
#include "tests/fuzz/golden_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  fuzz::copy_golden_tokenizer();
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
    fuzz::write_input(name, fuzz::text_of(data, size));
  try {
    const auto tokenizer = data::Tokenizer::from_directory(fuzz::folder());
    tokenizer->decode(
        tokenizer->encode("some <tool> text<|im_end|>", data::SpecialTokens::recognise, data::SequenceTokens::add));
    data::special_token_variables(*tokenizer);
    data::ChatTemplate::of(*tokenizer);
  } catch (const Error&) {
  }
  return 0;
}
