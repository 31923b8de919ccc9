// A GGUF file: its metadata, the configuration, the weights' rows and the tokenizer.
#include "nn/weights/gguf.h"

#include "core/error.h"
#include "tests/fuzz/input_file.h"
#include "text/model_text.h"

namespace {

using namespace lathe;

template <class Step>
void attempt(Step step) {
  try {
    step();
  } catch (const Error&) {
  }
}

void read_rows(const nn::WeightSource& weights) {
  for (const nn::WeightInfo& info : weights.weights()) {
    const int64_t columns = info.shape.rank() > 0 ? info.shape[-1] : 1,
                  rows = columns > 0 ? info.shape.numel() / columns : 0;
    if (rows < 1 || columns > 65536) continue;
    std::vector<float> row(static_cast<size_t>(columns));
    attempt([&] { weights.read_rows(info.name, rows - 1, 1, row.data()); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto path = fuzz::write_input("model.gguf", fuzz::text_of(data, size));
  attempt([&] {
    nn::ModelFiles files;
    files.gguf = nn::GgufFile::open(path);
    attempt([&] { read_rows(*nn::open_gguf_weights(files.gguf, {})); });
    attempt([&] { text::load_tokenizer(files)->encode("ab \xE2\x82\xAC<|im_end|>", data::SpecialTokens::recognise); });
    attempt([&] { read_rows(*nn::open_model_files(path).weights); });
  });
  return 0;
}
