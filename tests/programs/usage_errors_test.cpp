// A mistyped subcommand or option: the sentence names it and what was probably meant.
#include "programs/cli/usage_errors.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lathe::cli {
namespace {

std::string sentence_of(std::vector<std::string> arguments, bool with_subcommands = true) {
  CLI::App app{"", "lathe-train"};
  double alpha = 0, rank = 0;
  CLI::App* command = &app;
  if (with_subcommands) {
    app.require_subcommand(1);
    app.add_subcommand("dpo");
    command = app.add_subcommand("sft");
  }
  command->add_option("--lora_alpha", alpha);
  command->add_option("--lora_r", rank);
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return sentence_of_unknown_name(app, error);
  }
  return "taken";
}

TEST(UsageErrors, AMistypedSubcommandIsNamedWithAllThatThereAre) {
  EXPECT_EQ(sentence_of({"sff", "--lora_r", "8"}),
            "lathe-train has no subcommand 'sff', but dpo, sft; the nearest is sft");
  EXPECT_EQ(sentence_of({"pretraining"}), "lathe-train has no subcommand 'pretraining', but dpo, sft");
}

TEST(UsageErrors, AMistypedOptionIsNamedWithTheNearest) {
  EXPECT_EQ(sentence_of({"sft", "--lora_rank", "8"}),
            "lathe-train sft has no option --lora_rank; the nearest is --lora_r");
  EXPECT_EQ(sentence_of({"sft", "--lora_alfa=8"}),
            "lathe-train sft has no option --lora_alfa; the nearest is --lora_alpha");
  EXPECT_EQ(sentence_of({"sft", "--temperature", "1"}), "lathe-train sft has no option --temperature");
  EXPECT_EQ(sentence_of({"--lora_rank", "8"}, false), "lathe-train has no option --lora_rank; the nearest is --lora_r");
}

TEST(UsageErrors, EveryOtherErrorIsLeftToTheLibrary) {
  EXPECT_EQ(sentence_of({"sft", "--lora_r", "8"}), "taken");
  EXPECT_EQ(sentence_of({}), "");
  EXPECT_EQ(sentence_of({"sft", "--lora_r", "many"}), "");
  EXPECT_EQ(sentence_of({"sft", "8"}), "");
}

}  // namespace
}  // namespace lathe::cli
