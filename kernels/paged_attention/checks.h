// What the operations on pages demand of them.
#pragma once

#include <string_view>

#include "kernels/paged_attention/paged_attention.h"

namespace lathe::kernels {

void expect_pages(std::string_view operation, const KvPages& pages);
// Where rows are whole and only moved: k alone will do.
void expect_copied_pages(std::string_view operation, const KvPages& pages);
// The batch was made for these pages.
void expect_batch(std::string_view operation, const PagedBatch& batch, const KvPages& pages);

}  // namespace lathe::kernels
