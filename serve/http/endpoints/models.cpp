// GET /v1/models and /v1/models/NAME, POST /v1/load_lora_adapter and /v1/unload_lora_adapter
#include <algorithm>

#include "core/json_value.h"
#include "nn/weights/peft.h"
#include "serve/http/fields.h"
#include "serve/http/service.h"

namespace lathe::http {
namespace {

using nlohmann::ordered_json;

constexpr size_t most_name_bytes = 200;

ordered_json base_model(const Service& service) {
  ordered_json model{{"id", service.options.model_name},   {"object", "model"},
                     {"created", service.options.created}, {"owned_by", "lathe"},
                     {"root", service.options.model_root}, {"parent", nullptr}};
  if (service.engine.model() != nullptr) model["max_model_len"] = service.engine.context();
  return model;
}

ordered_json adapter_model(const Service& service, const AdapterList::Entry& adapter) {
  return {{"id", adapter.name},  {"object", "model"},    {"created", service.options.created},
          {"owned_by", "lathe"}, {"root", adapter.path}, {"parent", service.options.model_name}};
}

std::string read_name(const Fields& fields) {
  const ordered_json& name = fields.required("lora_name", "a name");
  if (!name.is_string() || name.get_ref<const std::string&>().empty() ||
      name.get_ref<const std::string&>().size() > most_name_bytes)
    throw bad_field("lora_name", "expected a name of 1 to 200 bytes");
  return name.get<std::string>();
}

Reply said(const std::string& sentence) { return {.body = sentence, .content_type = "text/plain; charset=utf-8"}; }

// The end of a change of adapters, told by the engine's thread.
EngineThread::Done on_strand(const Call& call, std::function<void()> succeeded) {
  return [call, succeeded = std::move(succeeded)](const std::optional<ApiError>& error) {
    call.exchange->post([call, succeeded, error] {
      if (error) return call.reply(*error);
      succeeded();
    });
  };
}

}  // namespace

void list_models(const Call& call) {
  ordered_json data = ordered_json::array();
  data.push_back(base_model(call.service));
  for (const AdapterList::Entry& adapter : call.service.adapters.all())
    data.push_back(adapter_model(call.service, adapter));
  call.reply(ordered_json{{"object", "list"}, {"data", std::move(data)}});
}

void show_model(const Call& call) {
  const std::string name = call.request().path.substr(std::string_view("/v1/models/").size());
  if (name == call.service.options.model_name) return call.reply(base_model(call.service));
  for (const AdapterList::Entry& adapter : call.service.adapters.all())
    if (adapter.name == name) return call.reply(adapter_model(call.service, adapter));
  call.service.adapter_of(name);  // says that there is none
}

void load_adapter(const Call& call) {
  call.service.loaded();
  const ordered_json body = parse_body(call.request().body);
  const Fields fields(body);
  const std::string name = read_name(fields);
  const ordered_json& path = fields.required("lora_path", "a folder");
  if (!path.is_string()) throw bad_field("lora_path", "expected a string");
  const auto folder = adapter_folder(call.service.options.adapter_root, path.get<std::string>());
  if (name == call.service.options.model_name) throw bad_field("lora_name", "is the base model's name");
  call.audit->model = name;
  std::shared_ptr<const nn::PeftAdapter> adapter;
  try {
    adapter = std::make_shared<const nn::PeftAdapter>(nn::read_peft_adapter(folder));
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "lora_path");
  }
  call.service.engine.load_adapter(name, adapter, on_strand(call, [call, name, folder] {
                                     call.service.adapters.add(name, folder.string());
                                     call.reply(said("Success: LoRA adapter '" + name + "' added successfully."));
                                   }));
}

void unload_adapter(const Call& call) {
  call.service.loaded();
  const ordered_json body = parse_body(call.request().body);
  const std::string name = read_name(Fields(body));
  call.audit->model = name;
  // From here on no new request finds it.
  if (!call.service.adapters.remove(name))
    throw ApiError(404, "there is no adapter " + name, "lora_name", "model_not_found");
  call.service.engine.unload_adapter(name, on_strand(call, [call, name] {
                                       call.reply(said("Success: LoRA adapter '" + name + "' removed successfully."));
                                     }));
}

}  // namespace lathe::http
