#include "programs/cli/program.h"
#include "programs/data/commands.h"

int main(int argc, char** argv) {
  return lathe::cli::run_program(
      argc, argv, "lathe-data", "Look at data as training will see it, and make shards of it.", [](CLI::App& app) {
        lathe::programs::add_inspect(app);
        lathe::programs::add_documents(app);
        lathe::programs::add_tokenize(app);
        lathe::programs::add_verify(app);
        lathe::programs::add_stats(app);
        lathe::programs::add_merge(app);
        app.footer(
            "Examples:\n"
            "  lathe-data inspect examples/extract/train.jsonl --model model.gguf\n"
            "  lathe-data inspect chats.jsonl --model model.gguf --assistant_only_loss --rows 10\n"
            "  lathe-data inspect rows.jsonl --model model.gguf --packing --max_length 2048 --json\n"
            "  lathe-data tokenize rows.jsonl.zst --model model.gguf --output shards\n"
            "  lathe-data tokenize pairs.jsonl --kind preference --model model.gguf --output pairs\n"
            "  lathe-data inspect shards --model model.gguf\n"
            "  lathe-data verify shards\n"
            "  lathe-data verify rows.jsonl --model model.gguf\n"
            "  lathe-data documents handbook --split tokens --model model.gguf --output rows.jsonl\n"
            "Each subcommand has its own --help.");
      });
}
