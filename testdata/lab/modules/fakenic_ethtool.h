/* SPDX-License-Identifier: GPL-2.0 */
/* fakenic_ethtool.h - the ethtool operations of the fake NIC driver. */

static unsigned int speed = SPEED;
module_param(speed, uint, 0644);
MODULE_PARM_DESC(speed, "speed of the link in Mb/s");

#ifdef FAKE_MLX5
#define PRIO_STATS(p) "rx_prio" #p "_pause", "rx_prio" #p "_pause_duration", "tx_prio" #p "_pause", "tx_prio" #p "_pause_duration"
#endif

/* The first five are counted; the others are 0 unless "stat" gives a value. */
static const char stat_names[][ETH_GSTRING_LEN] = {
#ifdef FAKE_MLX5
	"rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "link_down_events_phy",
	"rx_out_of_buffer", "rx_discards_phy", "tx_discards_phy", "rx_crc_errors_phy", "rx_symbol_err_phy",
	"rx_pause_ctrl_phy", "tx_pause_ctrl_phy", "tx_pause_storm_warning_events", "tx_pause_storm_error_events",
	PRIO_STATS(0), PRIO_STATS(1), PRIO_STATS(2), PRIO_STATS(3),
	PRIO_STATS(4), PRIO_STATS(5), PRIO_STATS(6), PRIO_STATS(7),
	"rx_pp_alloc_fast", "rx_pp_alloc_slow", "rx_pp_alloc_slow_high_order", "rx_pp_alloc_empty",
	"rx_pp_alloc_refill", "rx_pp_alloc_waive", "rx_pp_recycle_cached", "rx_pp_recycle_cache_full",
	"rx_pp_recycle_ring", "rx_pp_recycle_ring_full", "rx_pp_recycle_released_ref",
#else
	"rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "link_down_events",
	"stop_queue", "wake_queue", "tx_cq_err", "tx_cqe_unknown_type", "rx_coalesced_err", "rx_cqe_unknown_type",
	"hc_rx_discards_no_wqe", "hc_rx_err_vport_disabled", "hc_tx_err_gf_disabled", "hc_tx_err_vport_disabled",
	"hc_tx_err_mtu_violation", "hc_tx_err_gdma",
#endif
};
static u64 stat_values[ARRAY_SIZE(stat_names)];

static int stat_set(const char *val, const struct kernel_param *kp)
{
	const char *eq = strchr(val, '=');
	u64 v;
	int err;

	if (!eq)
		return -EINVAL;
	err = kstrtou64(eq + 1, 0, &v);
	if (err)
		return err;
	for (int i = 5; i < ARRAY_SIZE(stat_names); i++)
		if (!strncmp(val, stat_names[i], eq - val) && !stat_names[i][eq - val]) {
			stat_values[i] = v;
			return 0;
		}
	return -ENOENT;
}
static const struct kernel_param_ops stat_ops = { .set = stat_set };
module_param_cb(stat, &stat_ops, NULL, 0200);
MODULE_PARM_DESC(stat, "NAME=VALUE sets a counter of ethtool -S on all ports");

static int f_begin(struct net_device *dev)
{
	/* getters of rings, flags and the like cannot fail by themselves */
	if (READ_ONCE(gate_modes[G_reads]) == FAIL)
		return min(ask(netdev_priv(dev), G_reads), 0);
	return 0;
}

#ifdef FAKE_MLX5 /* mana has no such operation, the kernel fills in the rest */
static char fw[ETHTOOL_FWVERS_LEN] = FIRMWARE;
module_param_string(fw, fw, sizeof(fw), 0644);
MODULE_PARM_DESC(fw, "firmware version of ethtool -i");

static void f_drvinfo(struct net_device *dev, struct ethtool_drvinfo *i)
{
	struct fake *f = netdev_priv(dev);

	ask(f, G_reads);
	strscpy(i->driver, DRIVER, sizeof(i->driver));
#ifdef OFED_VERSION
	strscpy(i->version, OFED_VERSION, sizeof(i->version));
#endif
	strscpy(i->fw_version, fw, sizeof(i->fw_version));
	strscpy(i->bus_info, pci_name(f->pdev), sizeof(i->bus_info));
}
#endif

static int f_sset_count(struct net_device *dev, int set)
{
	switch (set) {
	case ETH_SS_PRIV_FLAGS:
		return ARRAY_SIZE(flag_names);
	case ETH_SS_STATS:
		return ARRAY_SIZE(stat_names);
	}
	return -EOPNOTSUPP;
}

static void f_strings(struct net_device *dev, u32 set, u8 *p)
{
	if (set == ETH_SS_PRIV_FLAGS)
		memcpy(p, flag_names, sizeof(flag_names));
	if (set == ETH_SS_STATS)
		memcpy(p, stat_names, sizeof(stat_names));
}

static void f_stats(struct net_device *dev, struct ethtool_stats *s, u64 *data)
{
	struct fake *f = netdev_priv(dev);
	struct rtnl_link_stats64 l;

	ask(f, G_reads);
	dev_get_stats(dev, &l);
	memcpy(data, stat_values, sizeof(stat_values));
	data[0] = l.rx_packets;
	data[1] = l.rx_bytes;
	data[2] = l.tx_packets;
	data[3] = l.tx_bytes;
	data[4] = f->link_downs;
}

static u32 f_get_flags(struct net_device *dev)
{
	struct fake *f = netdev_priv(dev);

	ask(f, G_reads);
	return f->cfg.flags;
}

static int f_set_flags(struct net_device *dev, u32 v)
{
	struct fake *f = netdev_priv(dev);
	struct cfg c = f->cfg;
	int m = ask(f, G_flags), err;

	if (m < 0)
		return m;
	if (m == LIE)
		return 0;
#ifdef FAKE_MLX5
	if (c.flags & ~v & FLAG_STRIDING && dev->features & (NETIF_F_LRO | NETIF_F_GRO_HW)) {
		netdev_err(dev, "Can't set legacy RQ with HW-GRO/LRO, disable them first\n");
		return -EINVAL;
	}
#endif
	if (m == HALF && c.flags != v)
		v = c.flags ^ BIT(__ffs(c.flags ^ v));
	c.flags = v;
	err = apply(f, &c);
	netdev_update_features(dev); /* some depend on flags */
	return err;
}

static int f_link(struct net_device *dev, struct ethtool_link_ksettings *k)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	ethtool_link_ksettings_zero_link_mode(k, supported);
	ethtool_link_ksettings_zero_link_mode(k, advertising);
	k->base.speed = SPEED_UNKNOWN;
	k->base.duplex = DUPLEX_UNKNOWN;
	if (netif_carrier_ok(dev)) {
		k->base.speed = speed;
		k->base.duplex = DUPLEX_FULL;
	}
#ifdef FAKE_MLX5
	ethtool_link_ksettings_add_link_mode(k, supported, 400000baseCR4_Full);
	ethtool_link_ksettings_add_link_mode(k, supported, 200000baseCR4_Full);
	ethtool_link_ksettings_add_link_mode(k, supported, Autoneg);
	ethtool_link_ksettings_add_link_mode(k, supported, Pause);
	linkmode_copy(k->link_modes.advertising, k->link_modes.supported);
	k->base.autoneg = AUTONEG_ENABLE;
	k->base.port = PORT_DA;
#else
	k->base.port = PORT_OTHER;
#endif
	return 0;
}

static void f_get_ring(struct net_device *dev, struct ethtool_ringparam *r,
		       struct kernel_ethtool_ringparam *kr, struct netlink_ext_ack *ack)
{
	struct fake *f = netdev_priv(dev);

	ask(f, G_reads);
	r->rx_max_pending = RX_MAX;
	r->tx_max_pending = TX_MAX;
	r->rx_pending = f->cfg.rx;
	r->tx_pending = f->cfg.tx;
}

/* More than the maximum is refused by the kernel itself, with EINVAL. */
static int f_set_ring(struct net_device *dev, struct ethtool_ringparam *r,
		      struct kernel_ethtool_ringparam *kr, struct netlink_ext_ack *ack)
{
	struct fake *f = netdev_priv(dev);
	struct cfg c = f->cfg;
	int m = ask(f, G_rings);

	if (m < 0)
		return m;
	if (r->rx_jumbo_pending || r->rx_mini_pending || r->rx_pending < RX_MIN || r->tx_pending < TX_MIN) {
		NL_SET_ERR_MSG_MOD(ack, "a ring is smaller than the minimum");
		return -EINVAL;
	}
	if (m == LIE)
		return 0;
	c.rx = roundup_pow_of_two(r->rx_pending);
	if (m != HALF)
		c.tx = roundup_pow_of_two(r->tx_pending);
	return apply(f, &c);
}

static void f_get_channels(struct net_device *dev, struct ethtool_channels *c)
{
	struct fake *f = netdev_priv(dev);

	ask(f, G_reads);
	c->max_combined = dev->num_rx_queues;
	c->combined_count = f->cfg.channels;
}

static int f_set_channels(struct net_device *dev, struct ethtool_channels *ch)
{
	struct fake *f = netdev_priv(dev);
	struct cfg c = f->cfg;
	int m = ask(f, G_channels);

	if (m < 0)
		return m;
	if (!ch->combined_count)
		return -EINVAL;
	if (m == LIE)
		return 0;
	c.channels = m == HALF ? DIV_ROUND_UP(ch->combined_count, 2) : ch->combined_count;
	return apply(f, &c);
}

#ifdef FAKE_MLX5
static unsigned int toggle_ms = 1000;
module_param(toggle_ms, uint, 0644);
MODULE_PARM_DESC(toggle_ms, "how long a change of PFC or FEC takes the link down");

static void toggle_link(struct fake *f)
{
	link_down(f);
	link_up_in(f, toggle_ms);
}

static void f_get_pause(struct net_device *dev, struct ethtool_pauseparam *p)
{
	struct fake *f = netdev_priv(dev);

	ask(f, G_reads);
	*p = f->pause;
}

static int f_set_pause(struct net_device *dev, struct ethtool_pauseparam *p)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_pause);

	if (m < 0)
		return m;
	if (p->autoneg)
		return -EINVAL;
	if (m == LIE)
		return 0;
	f->pause.rx_pause = p->rx_pause;
	if (m != HALF)
		f->pause.tx_pause = p->tx_pause;
	return 0;
}

static int f_get_fec(struct net_device *dev, struct ethtool_fecparam *p)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	p->fec = f->fec;
	p->active_fec = f->fec == ETHTOOL_FEC_AUTO ? ETHTOOL_FEC_RS : f->fec;
	return 0;
}

static int f_set_fec(struct net_device *dev, struct ethtool_fecparam *p)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_fec);

	if (m < 0)
		return m;
	/* one at a time, and fire-code is not for this speed */
	if (hweight32(p->fec) != 1 || p->fec & (ETHTOOL_FEC_NONE | ETHTOOL_FEC_BASER))
		return -EOPNOTSUPP;
	if (m == LIE || f->fec == p->fec)
		return 0;
	f->fec = p->fec;
	toggle_link(f);
	return 0;
}

static int f_get_coalesce(struct net_device *dev, struct ethtool_coalesce *c,
			  struct kernel_ethtool_coalesce *kc, struct netlink_ext_ack *ack)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	c->rx_coalesce_usecs = f->coal.rx_coalesce_usecs;
	c->rx_max_coalesced_frames = f->coal.rx_max_coalesced_frames;
	c->tx_coalesce_usecs = f->coal.tx_coalesce_usecs;
	c->tx_max_coalesced_frames = f->coal.tx_max_coalesced_frames;
	c->use_adaptive_rx_coalesce = f->coal.use_adaptive_rx_coalesce;
	c->use_adaptive_tx_coalesce = f->coal.use_adaptive_tx_coalesce;
	return 0;
}

static int f_set_coalesce(struct net_device *dev, struct ethtool_coalesce *c,
			  struct kernel_ethtool_coalesce *kc, struct netlink_ext_ack *ack)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_coalesce);

	if (m < 0)
		return m;
	if (max(c->rx_coalesce_usecs, c->tx_coalesce_usecs) > 0xfff ||
	    max(c->rx_max_coalesced_frames, c->tx_max_coalesced_frames) > 0xffff) {
		NL_SET_ERR_MSG_MOD(ack, "at most 4095 us and 65535 frames");
		return -ERANGE;
	}
	if (m == LIE)
		return 0;
	f->coal.rx_coalesce_usecs = c->rx_coalesce_usecs;
	if (m == HALF)
		return 0;
	f->coal = *c;
	return 0;
}

/* As in the real driver, port 4789 needs no registration. */
static int f_tunnel_port(struct net_device *dev, unsigned int table, unsigned int entry, struct udp_tunnel_info *ti)
{
	int m = ask(netdev_priv(dev), G_tunnels);

	return m < 0 ? m : 0;
}

/* To forget one always works. */
static int f_tunnel_forget(struct net_device *dev, unsigned int table, unsigned int entry, struct udp_tunnel_info *ti)
{
	return 0;
}

static const struct udp_tunnel_nic_info f_tunnels = {
	.set_port = f_tunnel_port, .unset_port = f_tunnel_forget,
	.flags = UDP_TUNNEL_NIC_INFO_STATIC_IANA_VXLAN,
	.tables = { { .n_entries = 7, .tunnel_types = UDP_TUNNEL_TYPE_VXLAN } },
};
#endif

static const struct ethtool_ops f_ethtool_ops = {
	.begin = f_begin,
	.get_link = ethtool_op_get_link,
	.get_ts_info = ethtool_op_get_ts_info,
	.get_sset_count = f_sset_count,
	.get_strings = f_strings,
	.get_ethtool_stats = f_stats,
	.get_priv_flags = f_get_flags,
	.set_priv_flags = f_set_flags,
	.get_link_ksettings = f_link,
	.get_ringparam = f_get_ring,
	.set_ringparam = f_set_ring,
	.get_channels = f_get_channels,
	.set_channels = f_set_channels,
#ifdef FAKE_MLX5
	.get_drvinfo = f_drvinfo,
	.get_pauseparam = f_get_pause,
	.set_pauseparam = f_set_pause,
	.get_fecparam = f_get_fec,
	.set_fecparam = f_set_fec,
	.supported_coalesce_params = ETHTOOL_COALESCE_USECS | ETHTOOL_COALESCE_MAX_FRAMES | ETHTOOL_COALESCE_USE_ADAPTIVE,
	.get_coalesce = f_get_coalesce,
	.set_coalesce = f_set_coalesce,
#endif
};
