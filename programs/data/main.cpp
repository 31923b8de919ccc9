#include "programs/cli/program.h"
#include "programs/data/commands.h"

int main(int argc, char** argv) {
  return lathe::cli::run_program(argc, argv, "lathe-data", "Look at data as training will see it.", [](CLI::App& app) {
    lathe::programs::add_inspect(app);
    app.footer(
        "Examples:\n"
        "  lathe-data inspect examples/extract/train.jsonl --model model.gguf\n"
        "  lathe-data inspect chats.jsonl --model model.gguf --assistant_only_loss --rows 10\n"
        "  lathe-data inspect rows.jsonl --model model.gguf --packing --max_length 2048 --json\n"
        "Each subcommand has its own --help.");
  });
}
