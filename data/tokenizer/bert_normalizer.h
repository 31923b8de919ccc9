// The normaliser of BERT's tokenizers: cleans a text, sets Chinese characters apart, and drops accents and capitals
// where it is told to.
#pragma once

namespace lathe::data {

struct AlignedText;

// Names are tokenizer.json's.
struct BertNormalization {
  bool clean_text = true;            // no control characters, and every white space is a plain space
  bool handle_chinese_chars = true;  // a space on either side
  bool strip_accents = true;         // of the decomposed text, no marks; the file's null: as lowercase
  bool lowercase = true;
};

void normalize_as_bert(AlignedText& text, const BertNormalization& options);

}  // namespace lathe::data
