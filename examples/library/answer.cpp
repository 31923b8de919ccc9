// answer MODEL PROMPT: the likeliest continuation of a text, token by token as it comes.
#include <cstdio>
#include <exception>

#include "nn/model_files.h"
#include "serve/engine/engine.h"
#include "text/model_text.h"

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: answer MODEL PROMPT   (MODEL: a .gguf file or a Hugging Face directory)\n");
    return 2;
  }
  const lathe::nn::ModelFiles files = lathe::nn::open_model_files(argv[1]);
  const lathe::text::ModelText text = lathe::text::load_model_text(files);
  const lathe::nn::Transformer model(files.config, *files.weights, {.dtype = lathe::nn::parse_compute_dtype("auto")});

  lathe::engine::Request request;
  request.prompt =
      text.tokenizer->encode(argv[2], lathe::data::SpecialTokens::as_text, lathe::data::SequenceTokens::add);
  request.sampling.temperature = 0;
  request.max_tokens = 32;
  request.stop_token_ids = text.stop_token_ids;

  lathe::data::StreamDecoder decoder(text.tokenizer);
  lathe::engine::generate(model, {request}, {}, [&](const lathe::engine::TokenOutput& output) {
    if (output.finish_reason == lathe::engine::FinishReason::stop) return;
    std::fputs(decoder.push(output.token).c_str(), stdout);
    std::fflush(stdout);
  });
  std::puts(decoder.finish().c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
