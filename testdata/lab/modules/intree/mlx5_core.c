// SPDX-License-Identifier: GPL-2.0
/* mlx5_core.c - the fake NIC driver as the kernel's own mlx5_core: it has no version. */
#define FAKE_MLX5
#include "../fakenic.c"
