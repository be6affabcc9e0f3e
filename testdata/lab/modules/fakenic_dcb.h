/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fakenic_dcb.h - data center bridging as mlx5 does it: the first DSCP entry of
 * the application table switches trust to DSCP, the last one gone switches it
 * back, and another set of PFC priorities takes the port down and up.
 */

static bool fw_dcbx;
module_param(fw_dcbx, bool, 0644);
MODULE_PARM_DESC(fw_dcbx, "a port that is bound from now on starts with DCBX in its firmware");

static int f_get_ets(struct net_device *dev, struct ieee_ets *ets)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	*ets = f->ets;
	return 0;
}

static int f_set_ets(struct net_device *dev, struct ieee_ets *ets)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_ets), sum = 0;
	bool shared = false;

	if (m < 0)
		return m;
	for (int i = 0; i < IEEE_8021QAZ_MAX_TCS; i++) {
		if (ets->prio_tc[i] >= IEEE_8021QAZ_MAX_TCS)
			return -EINVAL;
		if (ets->tc_tsa[i] == IEEE_8021QAZ_TSA_ETS) {
			shared = true;
			sum += ets->tc_tx_bw[i];
		}
	}
	if (shared && sum != 100)
		return -EINVAL;
	if (m == LIE)
		return 0;
	for (int i = 0; i < IEEE_8021QAZ_MAX_TCS; i++) /* the others show 100 */
		f->ets.tc_tx_bw[i] = ets->tc_tsa[i] == IEEE_8021QAZ_TSA_ETS ? ets->tc_tx_bw[i] : 100;
	if (m == HALF)
		return 0;
	memcpy(f->ets.tc_tsa, ets->tc_tsa, sizeof(ets->tc_tsa));
	memcpy(f->ets.prio_tc, ets->prio_tc, sizeof(ets->prio_tc));
	return 0;
}

static int f_get_pfc(struct net_device *dev, struct ieee_pfc *pfc)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	pfc->pfc_cap = IEEE_8021QAZ_MAX_TCS;
	pfc->pfc_en = f->pfc_en;
	pfc->delay = f->cable_len;
	return 0;
}

static int f_set_pfc(struct net_device *dev, struct ieee_pfc *pfc)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_pfc);
	u8 en = pfc->pfc_en;

	if (m < 0)
		return m;
	if (m == LIE)
		return 0;
	if (m == HALF)
		en &= -en; /* the lowest priority */
	if (en != f->pfc_en) {
		f->pfc_en = en;
		toggle_link(f);
	}
	if (pfc->delay && pfc->delay < 1000)
		f->cable_len = pfc->delay;
	return 0;
}

static struct dcb_app dscp_app(struct fake *f, int dscp)
{
	return (struct dcb_app) {
		.selector = IEEE_8021QAZ_APP_SEL_DSCP, .protocol = dscp, .priority = f->dscp2prio[dscp],
	};
}

static int f_set_app(struct net_device *dev, struct dcb_app *app)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_app), err;
	struct dcb_app old;

	if (m < 0)
		return m;
	if (app->selector != IEEE_8021QAZ_APP_SEL_DSCP || app->protocol >= 64 || app->priority >= 8)
		return -EINVAL;
	if (m == LIE || (m == HALF && f->dscp_apps))
		return 0;
	old = dscp_app(f, app->protocol);
	f->dscp2prio[app->protocol] = app->priority;
	if (dcb_ieee_delapp(dev, &old)) /* it is new */
		f->dscp_apps++;
	f->dscp_trust = true;
	err = dcb_ieee_setapp(dev, app);
	if (err && !--f->dscp_apps)
		f->dscp_trust = false;
	return err;
}

static int f_del_app(struct net_device *dev, struct dcb_app *app)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_app), err;

	if (m < 0)
		return m;
	if (app->selector != IEEE_8021QAZ_APP_SEL_DSCP || app->protocol >= 64)
		return -EINVAL;
	if (!f->dscp_apps || app->priority != f->dscp2prio[app->protocol])
		return -ENOENT;
	if (m == LIE)
		return 0;
	err = dcb_ieee_delapp(dev, app);
	if (err)
		return err;
	f->dscp2prio[app->protocol] = 0;
	if (!--f->dscp_apps)
		f->dscp_trust = false;
	return 0;
}

static u8 f_get_dcbx(struct net_device *dev)
{
	struct fake *f = netdev_priv(dev);

	ask(f, G_reads);
	return f->dcbx;
}

/* Not an error number: 1 is a refusal. Without HOST the firmware takes over. */
static u8 f_set_dcbx(struct net_device *dev, u8 mode)
{
	struct fake *f = netdev_priv(dev);
	int m = ask(f, G_dcbx);

	if (m < 0 || mode & DCB_CAP_DCBX_LLD_MANAGED || (mode && !(mode & DCB_CAP_DCBX_HOST)))
		return 1;
	if (m != LIE)
		f->dcbx = mode ?: f->dcbx & ~DCB_CAP_DCBX_HOST;
	return 0;
}

static const struct dcbnl_rtnl_ops f_dcb_ops = {
	.ieee_getets = f_get_ets,
	.ieee_setets = f_set_ets,
	.ieee_getpfc = f_get_pfc,
	.ieee_setpfc = f_set_pfc,
	.ieee_setapp = f_set_app,
	.ieee_delapp = f_del_app,
	.getdcbx = f_get_dcbx,
	.setdcbx = f_set_dcbx,
};

static void dcb_init(struct fake *f)
{
	f->ets.ets_cap = IEEE_8021QAZ_MAX_TCS;
	for (int i = 0; i < IEEE_8021QAZ_MAX_TCS; i++) {
		f->ets.prio_tc[i] = i;
		f->ets.tc_tsa[i] = IEEE_8021QAZ_TSA_VENDOR;
		f->ets.tc_tx_bw[i] = 100;
	}
	f->ets.prio_tc[0] = 1; /* the driver's own start: background traffic first */
	f->ets.prio_tc[1] = 0;
	f->cable_len = 7;
	f->dcbx = DCB_CAP_DCBX_VER_CEE | DCB_CAP_DCBX_VER_IEEE | (fw_dcbx ? 0 : DCB_CAP_DCBX_HOST);
	f->dev->dcbnl_ops = &f_dcb_ops;
}
