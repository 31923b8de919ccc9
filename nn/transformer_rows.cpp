// Which rows of a batch use which adapter, and what adapters do to the embedding and the output projection.
#include "autograd/ops/embedding.h"
#include "core/error.h"
#include "nn/transformer.h"

namespace lathe::nn {

BatchRows Transformer::rows_of(const TokenBatch& batch, const AdapterMode& mode) const {
  BatchRows rows{batch.layout, {}, mode};
  const std::vector<std::string>& names = batch.adapters;
  if (names.empty()) {
    if (adapters_.size() > 1)
      throw ConfigError("adapter", "the model has several (" + listed_adapters() +
                                       "): the batch must say which of them each sequence uses");
    if (!adapters_.empty()) rows.adapters.push_back({adapters_.begin()->first, {}});
    return rows;
  }
  const auto sequences = static_cast<int64_t>(names.size());
  if (sequences != batch.layout.sequences())
    throw ShapeError("a batch of " + std::to_string(batch.layout.sequences()) + " sequences names " +
                     std::to_string(sequences) + " adapters");
  for (int64_t first = 0, last = 0; first < sequences; first = last) {
    const std::string& name = names[static_cast<size_t>(first)];
    while (last < sequences && names[static_cast<size_t>(last)] == name) ++last;
    if (name.empty()) continue;
    adapter_named(name);  // throws where there is none
    if (last - first == sequences) {
      rows.adapters.push_back({name, {}});
    } else {
      rows.adapters.push_back({name, batch.layout.run(first, last)});
    }
  }
  check_output_weights(rows, sequences);
  return rows;
}

// One product gives the logits of all of a batch's rows.
void Transformer::check_output_weights(const BatchRows& rows, int64_t sequences) const {
  for (const auto& [name, adapter] : adapters_) {
    if (adapter.saved_module(output_module) == nullptr) continue;
    const bool all = rows.adapters.size() == 1 && !rows.adapters[0].sequences && rows.adapters[0].adapter == name;
    if (adapters_.size() == 1 && (all || sequences == 0)) continue;
    throw ConfigError("adapter", "'" + name +
                                     "' has an output projection of its own (modules_to_save): it is used alone, by "
                                     "every sequence; to use the base or others beside it, merge it into a model of "
                                     "its own (lathe-model merge)");
  }
}

const autograd::LinearWeight& Transformer::output_weight() const {
  return adapter_head_ ? *adapter_head_ : lm_head_ ? *lm_head_ : *embedding_;
}

autograd::Variable Transformer::embed(const TokenBatch& batch, const BatchRows& rows) const {
  std::vector<autograd::EmbeddingTerm> terms;
  for (const AdapterRun& run : rows.adapters) {
    const Adapter& adapter = adapter_named(run.adapter);
    const Parameter* saved = adapter.saved_module(embedding_module);
    if (saved == nullptr && !adapter.embedding) continue;
    autograd::EmbeddingTerm term{.sequences = run.sequences};
    if (saved != nullptr) term.weight = saved->leaf;
    if (adapter.embedding) {
      term.a = adapter.embedding->a.leaf;
      term.b = adapter.embedding->b.leaf;
      term.scale = adapter.embedding->scaling;
    }
    terms.push_back(std::move(term));
  }
  return autograd::embedding(*embedding_, batch.ids, batch.layout, terms, batch.embedding_plan);
}

}  // namespace lathe::nn
