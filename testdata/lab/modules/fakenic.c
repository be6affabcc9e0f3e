// SPDX-License-Identifier: GPL-2.0
/*
 * fakenic.c - a network driver without hardware, for tests of tools that tune
 * hosts. It is compiled into mana.ko and two flavours of mlx5_core.ko, and is
 * bound by driver_override to any PCI device: an igb of QEMU keeps its SR-IOV
 * capability, NUMA node and IOMMU group.
 *
 * What is sent is counted and dropped. Settings are remembered per port, with
 * the limits, the refusals and the side effects of the real drivers.
 */
#include "fakenic.h"
#include "fakenic_queues.h"
#include "fakenic_ethtool.h"
#ifdef FAKE_MLX5
#include "fakenic_dcb.h"
#include "fakenic_ecn.h"
#endif

static unsigned int max_channels;
module_param(max_channels, uint, 0644);
MODULE_PARM_DESC(max_channels, "queues that a port bound from now on can have; 0: one per CPU");

static bool masquerade = true;
module_param(masquerade, bool, 0644);
MODULE_PARM_DESC(masquerade, "a device that is bound from now on shows the PCI ids of the real one in sysfs");

static struct pci_identity identity(struct pci_dev *p)
{
	return (struct pci_identity) { p->vendor, p->device, p->subsystem_vendor, p->subsystem_device, p->class };
}

/* The files vendor, device and class come from here; config is the device's own. */
static void set_identity(struct pci_dev *p, struct pci_identity i)
{
	p->vendor = i.vendor;
	p->device = i.device;
	p->subsystem_vendor = i.sub_vendor;
	p->subsystem_device = i.sub_device;
	p->class = i.class;
}

static void masquerade_as_real(struct fake *f)
{
	static const u16 pf[] = PCI_ID, vf[] = PCI_ID_VF;
	const u16 *id = f->pdev->is_virtfn ? vf : pf;

	f->was = identity(f->pdev);
	if (masquerade)
		set_identity(f->pdev, (struct pci_identity) { id[0], id[1], id[0], id[1], PCI_CLASS_NETWORK_ETHERNET << 8 });
}

static void link_up(struct fake *f)
{
	if (netif_running(f->dev) && !f->cut)
		netif_carrier_on(f->dev);
}

static void link_down(struct fake *f)
{
	if (netif_carrier_ok(f->dev))
		f->link_downs++;
	netif_carrier_off(f->dev);
}

static void link_up_in(struct fake *f, unsigned int ms)
{
	mod_delayed_work(system_wq, &f->relink, msecs_to_jiffies(ms));
}

static void relink(struct work_struct *w)
{
	link_up(container_of(to_delayed_work(w), struct fake, relink));
}


/* Takes c over, reopening the queues for it. Under RTNL. */
static int apply(struct fake *f, const struct cfg *c)
{
	struct queues *qs;
	int err;

	if (!memcmp(c, &f->cfg, sizeof(*c)))
		return 0;
	if (!netif_running(f->dev)) {
		err = netif_set_real_num_queues(f->dev, c->channels, c->channels);
		if (!err)
			f->cfg = *c;
		return err;
	}
	qs = queues_open(f, c);
	if (IS_ERR(qs))
		return PTR_ERR(qs);
	err = netif_set_real_num_queues(f->dev, c->channels, c->channels);
	if (err) {
		queues_close(qs);
	} else {
		queues_swap(f, qs);
		f->cfg = *c;
	}
	if (!delayed_work_pending(&f->relink)) { /* else the link is down for longer */
		netif_carrier_off(f->dev);
		link_up_in(f, reopen_ms);
	}
	return err;
}

static int f_open(struct net_device *dev)
{
	struct fake *f = netdev_priv(dev);
	struct queues *qs = queues_open(f, &f->cfg);

	if (IS_ERR(qs))
		return PTR_ERR(qs);
	queues_swap(f, qs);
	link_up(f);
	netif_tx_start_all_queues(dev);
	return 0;
}

static int f_stop(struct net_device *dev)
{
	struct fake *f = netdev_priv(dev);

	netif_tx_disable(dev);
	cancel_delayed_work_sync(&f->relink);
	netif_carrier_off(dev);
	queues_swap(f, NULL);
	return 0;
}

static netdev_tx_t f_xmit(struct sk_buff *skb, struct net_device *dev)
{
	dev_sw_netstats_tx_add(dev, 1, skb->len);
	dev_consume_skb_any(skb);
	return NETDEV_TX_OK;
}

static int f_change_mtu(struct net_device *dev, int mtu)
{
	struct fake *f = netdev_priv(dev);
	struct cfg c = f->cfg;
	int m = ask(f, G_mtu), err;

	if (m < 0)
		return m;
	if (m == LIE)
		return 0;
	c.mtu = mtu;
	err = apply(f, &c);
	if (!err)
		WRITE_ONCE(dev->mtu, mtu);
	return err;
}

static int f_change_carrier(struct net_device *dev, bool on)
{
	struct fake *f = netdev_priv(dev);

	f->cut = !on;
	if (on)
		link_up(f);
	else
		link_down(f);
	return 0;
}

static netdev_features_t f_fix_features(struct net_device *dev, netdev_features_t want)
{
#ifdef FAKE_MLX5
	struct fake *f = netdev_priv(dev);

	if (!(f->cfg.flags & FLAG_STRIDING)) /* the legacy receive queue has neither */
		want &= ~(NETIF_F_LRO | NETIF_F_GRO_HW);
	if (want & NETIF_F_LRO)
		want &= ~NETIF_F_GRO_HW;
#endif
	return want;
}

/* A positive answer tells the kernel that dev->features is right already. */
static int f_set_features(struct net_device *dev, netdev_features_t want)
{
	netdev_features_t diff = dev->features ^ want;
	int m = ask(netdev_priv(dev), G_features);

	if (m == LIE)
		return 1;
	if (m == HALF && hweight64(diff) > 1) {
		dev->features ^= BIT_ULL(__ffs64(diff));
		return 1;
	}
	return m < 0 ? m : 0;
}

#ifdef FAKE_MLX5
static int f_port_name(struct net_device *dev, char *buf, size_t n)
{
	struct fake *f = netdev_priv(dev);

	if (f->pdev->is_virtfn)
		return -EOPNOTSUPP;
	return snprintf(buf, n, "p0") < n ? 0 : -EINVAL;
}
#endif

static const struct net_device_ops f_netdev_ops = {
	.ndo_open = f_open,
	.ndo_stop = f_stop,
	.ndo_start_xmit = f_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_change_mtu = f_change_mtu,
	.ndo_change_carrier = f_change_carrier,
	.ndo_fix_features = f_fix_features,
	.ndo_set_features = f_set_features,
#ifdef FAKE_MLX5
	.ndo_get_phys_port_name = f_port_name,
#endif
};

static void f_netdev_init(struct fake *f)
{
	struct net_device *dev = f->dev;
	u8 mac[ETH_ALEN] = { 0x02, 0x00, 0x5e, pci_domain_nr(f->pdev->bus), f->pdev->bus->number, f->pdev->devfn };

	SET_NETDEV_DEV(dev, &f->pdev->dev);
	dev->netdev_ops = &f_netdev_ops;
	dev->ethtool_ops = &f_ethtool_ops;
	dev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	dev->min_mtu = ETH_MIN_MTU;
	dev->max_mtu = MAX_MTU;
	eth_hw_addr_set(dev, mac);
	dev->hw_features = NETIF_F_SG | NETIF_F_RXCSUM | NETIF_F_TSO | NETIF_F_TSO6 | NETIF_F_RXHASH |
			   NETIF_F_HW_VLAN_CTAG_TX | NETIF_F_HW_VLAN_CTAG_RX;
#ifdef FAKE_MLX5
	dev->hw_features |= NETIF_F_HW_CSUM | NETIF_F_GSO_PARTIAL | NETIF_F_GSO_UDP_TUNNEL | NETIF_F_GSO_UDP_TUNNEL_CSUM;
	dev->gso_partial_features = NETIF_F_GSO_UDP_TUNNEL_CSUM;
	dev->hw_enc_features = dev->hw_features;
	dev->features = dev->hw_features | NETIF_F_RX_UDP_TUNNEL_PORT;
	dev->hw_features |= NETIF_F_LRO | NETIF_F_GRO_HW | NETIF_F_NTUPLE | NETIF_F_HW_TC | NETIF_F_RXALL | NETIF_F_RXFCS |
			    NETIF_F_RX_UDP_TUNNEL_PORT;
	dev->udp_tunnel_nic_info = &f_tunnels;
	if (!f->pdev->is_virtfn)
		dcb_init(f);
#ifdef OFED_VERSION
	if (!f->pdev->is_virtfn)
		dev->sysfs_groups[0] = &qos_group;
#endif
#else
	dev->hw_features |= NETIF_F_IP_CSUM | NETIF_F_IPV6_CSUM;
	dev->features = dev->hw_features;
#endif
	f->cfg = (struct cfg) {
		.rx = RX_DEFAULT, .tx = TX_DEFAULT, .flags = FLAGS_DEFAULT, .channels = min(dev->num_rx_queues, 16), .mtu = dev->mtu,
	};
	f->fec = ETHTOOL_FEC_RS;
	f->coal = (struct ethtool_coalesce) {
		.rx_coalesce_usecs = 8, .rx_max_coalesced_frames = 128, .use_adaptive_rx_coalesce = 1,
		.tx_coalesce_usecs = 8, .tx_max_coalesced_frames = 128, .use_adaptive_tx_coalesce = 1,
	};
#ifdef FAKE_MLX5
	f->pause = (struct ethtool_pauseparam) { .rx_pause = 1, .tx_pause = 1 };
#endif
}

static irqreturn_t f_irq(int irq, void *data)
{
	return IRQ_NONE; /* nobody tells the device to send any */
}

static void irqs_free(struct fake *f)
{
	for (int i = 0; i < f->nvec; i++)
		free_irq(pci_irq_vector(f->pdev, i), f);
	if (f->nvec)
		pci_free_irq_vectors(f->pdev);
	f->nvec = 0;
}

/* Interrupts under the names of the real driver. A device may have none. */
static void irqs_request(struct fake *f)
{
	int n = pci_alloc_irq_vectors(f->pdev, 2, f->dev->num_rx_queues + 1, PCI_IRQ_MSIX);

	if (n < 0)
		return;
	f->irq_names = devm_kcalloc(&f->pdev->dev, n, sizeof(*f->irq_names), GFP_KERNEL);
	for (; f->irq_names && f->nvec < n; f->nvec++) {
		char *name = f->irq_names[f->nvec];

		if (f->nvec)
			snprintf(name, sizeof(*f->irq_names), IRQ_QUEUE "%d@pci:%s", f->nvec - 1, pci_name(f->pdev));
		else
			snprintf(name, sizeof(*f->irq_names), IRQ_CONTROL "@pci:%s", pci_name(f->pdev));
		if (request_irq(pci_irq_vector(f->pdev, f->nvec), f_irq, 0, name, f))
			break;
	}
	if (!f->nvec)
		pci_free_irq_vectors(f->pdev);
}

static int f_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	unsigned int queues = clamp(max_channels ?: num_online_cpus(), 1, 64);
	struct net_device *dev = alloc_etherdev_mqs(sizeof(struct fake), queues, queues);
	struct fake *f;
	int err;

	if (!dev)
		return -ENOMEM;
	f = netdev_priv(dev);
	f->dev = dev;
	f->pdev = pdev;
	INIT_DELAYED_WORK(&f->relink, relink);
	err = pci_enable_device(pdev);
	if (err)
		goto free;
	masquerade_as_real(f);
	f_netdev_init(f);
	irqs_request(f);
	netif_carrier_off(dev);
	err = netif_set_real_num_queues(dev, f->cfg.channels, f->cfg.channels);
	if (err)
		goto disable;
	pci_set_drvdata(pdev, dev);
#ifdef FAKE_MLX5
	cc_init(f);
#endif
	err = register_netdev(dev);
	if (err)
		goto debug;
#ifdef FAKE_MLX5
	if (!pdev->is_virtfn)
		err = ecn_add(f);
	if (err)
		goto unregister;
#endif
	return 0;

#ifdef FAKE_MLX5
unregister:
	unregister_netdev(dev);
#endif
debug:
	debugfs_remove_recursive(f->debug);
disable:
	irqs_free(f);
	set_identity(pdev, f->was);
	pci_disable_device(pdev);
free:
	free_netdev(dev);
	return err;
}

static void f_remove(struct pci_dev *pdev)
{
	struct net_device *dev = pci_get_drvdata(pdev);
	struct fake *f = netdev_priv(dev);

	pci_disable_sriov(pdev);
	debugfs_remove_recursive(f->debug);
#ifdef FAKE_MLX5
	if (!pdev->is_virtfn)
		ecn_remove(f);
#endif
	unregister_netdev(dev);
	cancel_delayed_work_sync(&f->relink);
	irqs_free(f);
	set_identity(pdev, f->was);
	pci_disable_device(pdev);
	free_netdev(dev);
}

static int f_sriov(struct pci_dev *pdev, int n)
{
	int m = ask(netdev_priv((struct net_device *)pci_get_drvdata(pdev)), G_sriov), err;

	if (m < 0)
		return m;
	if (m == LIE)
		return n;
	if (!n) {
		pci_disable_sriov(pdev);
		return 0;
	}
	if (m == HALF)
		n = DIV_ROUND_UP(n, 2);
	err = pci_enable_sriov(pdev, n);
	return err ?: n;
}

static const struct pci_device_id f_ids[] = { { } }; /* driver_override alone binds */

static struct pci_driver f_driver = {
	.name = DRIVER, .id_table = f_ids, .probe = f_probe, .remove = f_remove, .sriov_configure = f_sriov,
};

static int __init f_init(void)
{
	int err;

#ifdef FAKE_MLX5
	ecn_attrs();
	debug_root = debugfs_create_dir("mlx5", NULL);
#endif
	err = pci_register_driver(&f_driver);
#ifdef FAKE_MLX5
	if (err)
		debugfs_remove_recursive(debug_root);
#endif
	return err;
}

static void __exit f_exit(void)
{
	gate_open();
	pci_unregister_driver(&f_driver);
#ifdef FAKE_MLX5
	debugfs_remove_recursive(debug_root);
#endif
}

module_init(f_init);
module_exit(f_exit);
MODULE_LICENSE("GPL");
#ifndef OFED_VERSION
MODULE_INFO(intree, "Y"); /* as the drivers it stands for: no taint O */
#endif
MODULE_DESCRIPTION("fake " DRIVER " for tests");
#ifdef OFED_VERSION
MODULE_VERSION(OFED_VERSION);
#endif
