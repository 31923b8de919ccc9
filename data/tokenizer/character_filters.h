// Normalisers that look at one character at a time: ALBERT's and SentencePiece's, as Hugging Face's tokenizers have
// them.
#pragma once

namespace lathe::data {

struct AlignedText;

// StripAccents: combining marks of every kind go.
void strip_accents(AlignedText& text);
// Nmt: control characters go, and what is a space, a line's end or nothing to see becomes a space.
void normalize_for_translation(AlignedText& text);

}  // namespace lathe::data
