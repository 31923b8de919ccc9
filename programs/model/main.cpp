#include "programs/cli/program.h"
#include "programs/model/commands.h"

int main(int argc, char** argv) {
  return lathe::cli::run_program(
      argc, argv, "lathe-model",
      "Fetch a model, look into it, let it answer, measure it, quantise and convert it, merge adapters into it. "
      "MODEL is a .gguf file, a Hugging Face directory, or ORG/NAME that pull has fetched.",
      [](CLI::App& app) {
        lathe::programs::add_info(app);
        lathe::programs::add_tokenize(app);
        lathe::programs::add_generate(app);
        lathe::programs::add_chat(app);
        lathe::programs::add_eval(app);
        lathe::programs::add_merge(app);
        lathe::programs::add_quantize(app);
        lathe::programs::add_pull(app);
        lathe::programs::add_convert(app);
        app.footer(
            "Examples:\n"
            "  lathe-model pull HuggingFaceTB/SmolLM2-135M-Instruct\n"
            "  lathe-model info model.gguf\n"
            "  lathe-model tokenize model.gguf --prompt 'Name three rivers.'\n"
            "  lathe-model generate model.gguf --prompt 'Name three rivers.' --max_tokens 64\n"
            "  lathe-model chat model.gguf --adapter runs/extract\n"
            "  lathe-model eval model.gguf --dataset examples/extract/heldout.jsonl --metric json\n"
            "  lathe-model merge DIR --adapter runs/extract merged\n"
            "  lathe-model convert DIR model-q8_0.gguf --dtype q8_0\n"
            "  lathe-model quantize DIR DIR-nf4 --bnb_4bit_use_double_quant\n"
            "Each subcommand has its own --help.");
      });
}
