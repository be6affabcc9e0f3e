// SPDX-License-Identifier: GPL-2.0
/* mana.c - the fake NIC driver as Microsoft's mana. */
#define FAKE_MANA
#include "fakenic.c"
