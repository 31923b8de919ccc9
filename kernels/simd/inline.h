// LATHE_INLINE functions become part of their caller however large they are. Two uses: the inner loops of CPU bodies;
// and whatever a header shares between sources for several instruction sets, because a symbol that was compiled with
// wider instructions could be linked into code that runs on a smaller machine.
#pragma once

#define LATHE_INLINE inline __attribute__((always_inline))
