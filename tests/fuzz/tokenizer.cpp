// tokenizer.json, then text through it and back.
#include "data/tokenizer/tokenizer.h"

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  using lathe::data::SequenceTokens;
  using lathe::data::SpecialTokens;
  fuzz::write_input("tokenizer.json", fuzz::text_of(data, size));
  try {
    const auto tokenizer = data::Tokenizer::from_directory(fuzz::folder());
    for (const char* text : {"", " Hello, world! 123\n\tna\xC3\xAFve \xE2\x82\xAC <s>a</s> <|im_end|>",
                             "aaaaaaaaaaaaaaaaaaaa\xF0\x9F\x98\x80\xFF"}) {
      const auto ids = tokenizer->encode(text, SpecialTokens::recognise, SequenceTokens::add);
      tokenizer->decode(ids);
      data::StreamDecoder stream(tokenizer);
      for (const int32_t id : ids) stream.push(id);
      stream.finish();
    }
  } catch (const Error&) {
  }
  return 0;
}
