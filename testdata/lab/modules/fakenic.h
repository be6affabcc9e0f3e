/* SPDX-License-Identifier: GPL-2.0 */
/* fakenic.h - what the parts of the fake NIC driver share. */
#ifndef FAKENIC_H
#define FAKENIC_H

#include <linux/dcbnl.h>
#include <linux/debugfs.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/interrupt.h>
#include <linux/linkmode.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/rtnetlink.h>
#include <linux/workqueue.h>
#include <net/dcbnl.h>
#include <net/page_pool/helpers.h>
#include <net/udp_tunnel.h>

#define COMMON_CLASSES(X) X(rings) X(flags) X(channels) X(features) X(mtu) X(sriov) X(reads)
#define MLX5_CLASSES(X) COMMON_CLASSES(X) X(pause) X(fec) X(coalesce) X(pfc) X(ets) X(app) X(dcbx) X(ecn) X(tunnels)
#if defined(OFED_VERSION)
#define GATE_CLASSES(X) MLX5_CLASSES(X) X(trust)
#elif defined(FAKE_MLX5)
#define GATE_CLASSES(X) MLX5_CLASSES(X)
#else
#define GATE_CLASSES(X) COMMON_CLASSES(X)
#endif
#include "gate.h"

#if defined(FAKE_MANA)
#define DRIVER "mana"
#define SPEED 200000
#define RX_MIN 128
#define RX_DEFAULT 1024
#define TX_MIN 128
#define TX_DEFAULT 256
#define TX_MAX 16384
#define MAX_MTU 9176
#define PCI_ID { 0x1414, 0x00ba }
#define PCI_ID_VF { 0x1414, 0x00ba }
#define IRQ_CONTROL "mana_hwc"
#define IRQ_QUEUE "mana_q"
static const char flag_names[][ETH_GSTRING_LEN] = { "full-page-rx" };
enum { FLAG_FULL_PAGE = BIT(0), FLAGS_DEFAULT = 0 };
#elif defined(FAKE_MLX5)
#define DRIVER "mlx5_core"
#define SPEED 400000
#define RX_MIN 2
#define RX_DEFAULT 1024
#define TX_MIN 64
#define TX_DEFAULT 1024
#define TX_MAX 8192
#define MAX_MTU 9978
#define FIRMWARE "28.39.1002 (MT_0000000838)"
#define PCI_ID { 0x15b3, 0x1021 }		/* ConnectX-7 */
#define PCI_ID_VF { 0x15b3, 0x101e }
#define IRQ_CONTROL "mlx5_async0"
#define IRQ_QUEUE "mlx5_comp"
static const char flag_names[][ETH_GSTRING_LEN] = {
	"rx_cqe_moder", "tx_cqe_moder", "rx_cqe_compress", "rx_striding_rq",
	"rx_no_csum_complete", "xdp_tx_mpwqe", "skb_tx_mpwqe", "tx_port_ts",
};
enum { FLAG_STRIDING = BIT(3), FLAGS_DEFAULT = BIT(0) | BIT(3) | BIT(5) | BIT(6) };
#else
#error "include this file from one of the flavours"
#endif
#define RX_MAX 8192

/* The congestion control parameters of the firmware, in the order of cc_names. */
#define CC_PARAMS 22

/* What the kernel holds of a PCI function's identity. */
struct pci_identity {
	u16 vendor, device, sub_vendor, sub_device;
	u32 class;
};

/* What a change of makes the driver reopen its queues. */
struct cfg {
	u32 rx, tx;	/* ring entries */
	u32 flags;	/* private flags */
	u32 channels;
	u32 mtu;
};

struct queue {
	struct napi_struct napi;
	struct page_pool *pool;
	struct page **pages;	/* what the receive ring holds */
	u32 n;
};

struct queues {
	u32 n;
	struct queue q[];
};

struct fake {
	struct net_device *dev;
	struct pci_dev *pdev;
	struct pci_identity was;
	struct cfg cfg;
	struct queues *queues;		/* while the interface is up */
	int nvec;			/* interrupts */
	char (*irq_names)[40];
	struct delayed_work relink;
	bool cut;			/* the cable is out: ip link set carrier off */
	u64 link_downs;

	struct ethtool_pauseparam pause;
	struct ethtool_coalesce coal;
	u32 fec;

	struct ieee_ets ets;
	u8 pfc_en;
	u16 cable_len;			/* metres */
	u8 dcbx;
	u8 dscp2prio[64];
	u32 dscp_apps;			/* entries; with none, PCP is trusted */
	bool dscp_trust;

	u8 ecn_on[2][8];		/* np, rp by priority */
	u32 cc[CC_PARAMS];
	struct kobject *ecn_dirs[5];
	struct cc_file { struct fake *f; int i; } cc_files[CC_PARAMS];
	struct dentry *debug;
};

static char only[32];
module_param_string(only, only, sizeof(only), 0644);
MODULE_PARM_DESC(only, "PCI address of the one port that the modes count for; empty: all");

/* The gate for one port. */
static int ask(struct fake *f, enum gate_class c)
{
	if (!sysfs_streq(only, "") && !sysfs_streq(only, pci_name(f->pdev)))
		return NORMAL;
	return gate(c);
}

static int apply(struct fake *f, const struct cfg *c);
static void link_down(struct fake *f);
static void link_up_in(struct fake *f, unsigned int ms);

#endif
