// A JSON Lines file as rows for supervised fine-tuning, of every kind, with each way of making labels, and as rows of
// preferences.
#include "core/error.h"
#include "core/thread_pool.h"
#include "data/rows/preference_rows.h"
#include "data/rows/sft_rows.h"
#include "tests/fuzz/golden_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  static const auto tokenizer = [] {
    set_thread_count(1);
    fuzz::copy_golden_tokenizer();
    return data::Tokenizer::from_directory(fuzz::folder());
  }();
  static const auto chat_template = data::ChatTemplate::compile(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% endfor %}");
  const auto file = fuzz::write_input("rows.jsonl", fuzz::text_of(data, size));
  for (const bool assistant_only : {false, true}) {
    try {
      data::SftOptions options;
      options.assistant_only_loss = assistant_only;
      options.max_length = 64;
      options.truncation_mode = assistant_only ? data::TruncationMode::keep_end : data::TruncationMode::keep_start;
      data::read_sft_rows(file, *tokenizer, chat_template.get(), options);
    } catch (const Error&) {
    }
    try {
      data::PreferenceOptions options;
      options.max_length = 64;
      options.truncation_mode = assistant_only ? data::TruncationMode::keep_end : data::TruncationMode::keep_start;
      data::read_preference_rows(file, *tokenizer, chat_template.get(), options);
    } catch (const Error&) {
    }
  }
  return 0;
}
