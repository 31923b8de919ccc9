// One setting of a run. --help, --config, config.yaml and the comparison on resume are made from tables of such fields;
// the config of a method is several tables put together (run_config.h). Names and defaults are those of TRL,
// transformers and PEFT.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lathe::train {

// The groups of --help and config.yaml, in their order.
enum class Group { model_and_data, adapter, optimisation, memory, records };
std::string_view name_of(Group group);  // "Model and data"

// `result`: a run that is resumed must have the same value. `run`: how it is carried out and recorded. `call`: what one
// call of the program does with the run; config.yaml leaves it open.
enum class Shapes { result, run, call };
// `several`: a list, as text with commas between its parts; its flag takes them with spaces between them, too.
// `sources`: the same of files, whose flag is given once for each.
enum class Values { one, several, sources };

// Bound to a member of a config, which it must not outlive.
struct Field {
  using Target = std::variant<bool*, int64_t*, double*, std::string*, std::optional<bool>*, std::optional<double>*>;
  std::string name;
  Group group;
  std::string help;
  Shapes shapes;
  Target target;
  Values values = Values::one;
};
using Fields = std::vector<Field>;
using NamedValues = std::vector<std::pair<std::string, std::string>>;

std::string number_text(double value);  // the shortest that reads back as the same double

// Several tables as one: by group, and within a group in the order in which the tables are given.
Fields composed(std::initializer_list<Fields> tables);

// The value as YAML writes it ("null" where it is left open) and the value from text; ConfigError for text that is
// none.
std::string text_of(const Field& field);
void set_from_text(const Field& field, const std::string& text);

// What is wrong with a config, collected so that a user mends it in one go.
class Complaints {
 public:
  void require(bool good, const std::string& key, const std::string& reason) {
    if (!good) add(key, reason);
  }
  void add(const std::string& key, const std::string& reason);
  void raise() const;  // one ConfigError with every complaint, if there is any

  // The usual ones.
  void require_positive(const std::string& key, int64_t value);
  void require_not_negative(const std::string& key, double value);
  void require_below_one(const std::string& key, double value);  // and 0 or more

 private:
  std::string first_key_, text_;
};

// The parts of a list as people type and paste them: commas, spaces or both between them.
std::vector<std::string> list_parts(const std::string& list);

bool one_of(std::string_view value, std::initializer_list<std::string_view> choices);

// Sets fields by name, a later value winning. `method` names whose settings they are: "SFT".
void set_fields(const Fields& fields, const NamedValues& values, const std::string& method, Complaints& wrong);

// Every field in groups. `command` is the subcommand that takes the text through --config.
std::string yaml_of(const Fields& fields, const std::string& command);

// Name and value of the fields that shape the result.
NamedValues result_values(const Fields& fields);

}  // namespace lathe::train
