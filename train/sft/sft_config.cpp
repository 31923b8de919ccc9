#include "train/sft/sft_config.h"

namespace lathe::train {
namespace {

Fields sft_fields(SftSettings& s) {
  constexpr auto group = Group::model_and_data;
  constexpr auto result = Shapes::result;
  return {
      {"dataset_text_field", group, "the field of plain text rows", Shapes::run, &s.dataset_text_field},
      {"max_length", group, "tokens of a row; what is longer loses its end", result, &s.max_length},
      {"too_long", group, "truncate rows above max_length, or stop with an error", Shapes::run, &s.too_long},
      {"packing", group, "put several rows into one of max_length tokens (attention stays within each)", result,
       &s.packing},
      {"packing_strategy", group, "bfd, bfd_split or wrapped", result, &s.packing_strategy},
      {"completion_only_loss", group, "learn the completion alone (default: where rows have one)", result,
       &s.completion_only_loss},
      {"assistant_only_loss", group, "learn what the assistant says alone", result, &s.assistant_only_loss},
      {"streaming", group,
       "read rows in their order as steps ask for them, from a pipe, - or a file larger than memory (needs max_steps)",
       result, &s.streaming},
  };
}

void check_sft(const SftSettings& s, Complaints& wrong) {
  wrong.require(s.max_length >= 2 && s.max_length <= 262144, "max_length",
                "must be from 2 to 262144, found " + std::to_string(s.max_length));
  wrong.require(one_of(s.too_long, {"truncate", "error"}), "too_long",
                "'" + s.too_long + "' is neither truncate nor error");
  wrong.require(one_of(s.packing_strategy, {"bfd", "bfd_split", "wrapped"}), "packing_strategy",
                "'" + s.packing_strategy + "' is none of bfd, bfd_split, wrapped");
}

}  // namespace

Fields fields_of(SftConfig& c) {
  return composed({model_fields(c),
                   data_fields(c,
                               "{\"prompt\", \"completion\"}, {\"messages\"}, {\"text\"}, {\"conversations\"} or "
                               "{\"input_ids\"}",
                               "eval_loss and eval_mean_token_accuracy"),
                   sft_fields(c), adapter_fields(c), training_fields(c, "2e-4 for adapters, 2e-5 for whole models")});
}

void check(const SftConfig& c, Complaints& wrong) {
  check_model(c, wrong);
  check_data(c, c.dry_run, wrong);
  check_sft(c, wrong);
  wrong.require(!c.streaming || c.max_steps > 0, "streaming", "needs max_steps: nobody knows how many rows there are");
  check_adapter(c, wrong);
  check_training(c, wrong);
}

}  // namespace lathe::train
