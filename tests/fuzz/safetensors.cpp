// A safetensors file: its header, and a view of each tensor that lies within the file.
#include "nn/weights/safetensors.h"

#include "core/error.h"
#include "tests/fuzz/input_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  const auto path = fuzz::write_input("model.safetensors", fuzz::text_of(data, size));
  try {
    const auto file = nn::SafetensorsFile::open(path);
    for (const std::string& name : file->names()) {
      try {
        const Tensor tensor = file->tensor(name);
        const auto* bytes = static_cast<const volatile unsigned char*>(tensor.raw());
        if (tensor.nbytes() > 0) (void)(bytes[0] + bytes[tensor.nbytes() - 1]);
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
