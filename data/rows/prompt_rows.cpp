#include "data/rows/prompt_rows.h"

#include <map>

#include "core/error.h"
#include "core/json.h"
#include "core/thread_pool.h"
#include "data/rows/chat_rows.h"
#include "data/rows/json_lines.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

class PromptPreparation {
 public:
  PromptPreparation(const Tokenizer& tokenizer, const ChatTemplate* chat_template, int64_t vocab_size)
      : tokenizer_(tokenizer),
        chat_template_(chat_template),
        vocab_size_(vocab_size),
        token_variables_(special_token_variables(tokenizer)) {}

  PromptRow prepare(const ordered_json& row) const {
    if (!row.contains("prompt")) throw Error("has no \"prompt\"");
    for (const char* taken : {"completion", "completion_ids"})
      if (row.contains(taken))
        throw Error(std::string("has a column \"") + taken + "\", which is the name of the model's answer; rename it");
    PromptRow prepared;
    prepared.columns = row;
    prepared.columns.erase("prompt");
    const ordered_json& prompt = row.at("prompt");
    if (prompt.is_string()) {
      prepared.prompt = prompt;
      prepared.ids = tokenizer_.encode(prompt.get<std::string>(), SpecialTokens::recognise, SequenceTokens::add);
    } else {
      prepared.prompt = messages_of(row, "prompt");
      const RenderedChat chat = render_row(row, prepared.prompt, chat_template_, token_variables_, true);
      prepared.ids = tokenizer_.encode(chat.text, chat.control);
    }
    if (prepared.ids.empty()) throw Error("has a \"prompt\" without a token");
    for (const int32_t id : prepared.ids)
      if (id >= vocab_size_)
        throw Error("holds the token " + std::to_string(id) + " (\"" + std::string(tokenizer_.token(id)) +
                    "\"), but the model's embedding has " + std::to_string(vocab_size_) + " rows");
    return prepared;
  }

 private:
  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
  int64_t vocab_size_;
  std::map<std::string, std::string> token_variables_;
};

}  // namespace

struct PromptRowReader::Preparation {
  PromptPreparation rows;
};

PromptRowReader::PromptRowReader(const Tokenizer& tokenizer, const ChatTemplate* chat_template, int64_t vocab_size)
    : preparation_(new Preparation{PromptPreparation(tokenizer, chat_template, vocab_size)}) {}
PromptRowReader::~PromptRowReader() = default;

PromptRow PromptRowReader::read(std::string_view json) const {
  const JsonRow row(json);
  return preparation_->rows.prepare(row.object());
}

// Two lines: where the row stood, and the row. Wrapping it in one object could nest it deeper than a row may be.
std::string prompt_text(const PromptRow& row) {
  const auto dumped = [](const ordered_json& json) {
    return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  };
  ordered_json whole = {{"prompt", row.prompt}};
  whole.update(row.columns);
  return dumped({{"file", row.file}, {"line", row.line}}) + "\n" + dumped(whole);
}

PromptRow prompt_row(std::vector<int32_t> ids, std::string_view text, const std::string& file) {
  PromptRow row;
  try {
    const size_t line_end = text.find('\n');
    if (line_end == std::string_view::npos) throw Error("has one line");
    const ordered_json place = parse_json_row(text.substr(0, line_end));
    row.file = place.at("file").get<std::string>();
    row.line = place.at("line").get<int64_t>();
    row.columns = parse_json_row(text.substr(line_end + 1));
    row.prompt = row.columns.at("prompt");
    row.columns.erase("prompt");
  } catch (const std::exception& error) {
    throw FormatError(file, -1, std::string("the text of a prompt is none: ") + error.what());
  }
  if (!row.prompt.is_string() && !row.prompt.is_array())
    throw FormatError(file, -1, "the text of a prompt is none: its prompt is neither text nor messages");
  row.ids = std::move(ids);
  return row;
}

std::vector<PromptRow> read_prompt_rows(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                        const ChatTemplate* chat_template, int64_t vocab_size) {
  const JsonLines lines = JsonLines::open(file);
  if (lines.size() == 0) throw FormatError(lines.file(), -1, "there is no row in it");
  const PromptRowReader reader(tokenizer, chat_template, vocab_size);
  std::vector<PromptRow> rows(static_cast<size_t>(lines.size()));
  std::vector<std::string> errors(rows.size());
  parallel_for(lines.size(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto at = static_cast<size_t>(row);
      try {
        rows[at] = reader.read(lines.text(row));
        rows[at].file = lines.file();
        rows[at].line = lines.line(row);
      } catch (const std::exception& error) {
        errors[at] = error.what();
      }
    }
  });
  for (size_t row = 0; row < errors.size(); ++row)
    if (!errors[row].empty())
      throw FormatError(lines.file(), -1,
                        "line " + std::to_string(lines.line(static_cast<int64_t>(row))) + ": " + errors[row]);
  return rows;
}

}  // namespace lathe::data
