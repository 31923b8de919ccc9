#include "programs/cli/program.h"
#include "programs/train/commands.h"
#include "programs/train/processes.h"

int main(int argc, char** argv) {
  lathe::programs::become_mpi_program(argv);
  return lathe::programs::end_of_process(
      lathe::cli::run_program(argc, argv, "lathe-train", "Fine-tune a model on your own examples.", [](CLI::App& app) {
        lathe::programs::add_sft(app);
        lathe::programs::add_dpo(app);
        lathe::programs::add_grpo(app);
        app.footer(
            "Example:\n"
            "  lathe-train sft --model model.gguf --dataset rows.jsonl --output_dir runs/first\n"
            "Each subcommand has its own --help.");
      }));
}
