// lathe-bench data: how fast training reads shards, beside what the page cache gives.
#pragma once

namespace CLI {
class App;
}

namespace lathe::bench {

void add_data(CLI::App& app);

}  // namespace lathe::bench
