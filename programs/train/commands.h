// The subcommands of lathe-train.
#pragma once

namespace CLI {
class App;
}

namespace lathe::programs {

void add_sft(CLI::App& app);
void add_dpo(CLI::App& app);
void add_grpo(CLI::App& app);

}  // namespace lathe::programs
