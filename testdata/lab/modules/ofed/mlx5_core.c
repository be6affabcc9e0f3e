// SPDX-License-Identifier: GPL-2.0
/* mlx5_core.c - the fake NIC driver as the mlx5_core of MLNX_OFED. */
#define FAKE_MLX5
#define OFED_VERSION "24.10-0.7.0"
#include "../fakenic.c"
