#include <gtest/gtest.h>

#include "tests/support/cuda_sources.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

class CheckTest : public ::testing::Test {
 public:
  explicit CheckTest(std::function<Faults()> check) : check_(std::move(check)) {}
  void TestBody() override {
    for (const std::string& fault : check_()) ADD_FAILURE() << fault;
  }

 private:
  std::function<Faults()> check_;
};

void add(const std::string& suite, const std::string& name, std::function<Faults()> check) {
  ::testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [check = std::move(check)]() -> ::testing::Test* { return new CheckTest(check); });
}

}  // namespace

bool register_operation_tests(const std::filesystem::path& test_file, const std::vector<Operation>& operations) {
  using Check = Faults (*)(const Operation&, const Case&, const Place&);
  const std::pair<const char*, Check> checks[] = {{"matches_reference", matches_reference},
                                                  {"writes_everything", writes_everything},
                                                  {"repeatable", repeatable},
                                                  {"batch_invariant", batch_invariant}};
  for (const Operation& operation : operations) {
    for (const Case& test_case : operation.cases) {
      for (const Place& place : places_for(operation)) {
        for (const auto& [name, check] : checks)
          add(operation.name, test_case.name + "/" + name + "/" + place.name(),
              [check = check, operation, test_case, place] { return check(operation, test_case, place); });
        if (place.device.kind == DeviceKind::simt)
          add(operation.name, test_case.name + "/any_fiber_order/simt",
              [operation, test_case, place] { return any_fiber_order(operation, test_case, place); });
      }
      if (!test_case.gradient.empty())
        add(operation.name, test_case.name + "/gradient",
            [operation, test_case] { return gradient(operation, test_case); });
    }
  }
  const std::string stem = test_file.stem();  // rope_test
  const std::string folder = stem.substr(0, stem.rfind("_test"));
  const std::filesystem::path root = test_file.parent_path().parent_path().parent_path();
  add("cuda_sources", folder, [root, folder, operations] { return faults_of_cuda_sources(root, folder, operations); });
  return true;
}

}  // namespace lathe::testing
