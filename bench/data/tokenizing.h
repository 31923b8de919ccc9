// lathe-bench tokenize: how fast a tokenizer reads text, on one thread, from memory to memory.
#pragma once

namespace CLI {
class App;
}

namespace lathe::bench {

void add_tokenize(CLI::App& app);

}  // namespace lathe::bench
