/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fakenic_ecn.h - RoCE congestion control: the parameters of the firmware in
 * debugfs (every mlx5), and those with the switches per priority and the trust
 * file below /sys/class/net/IF (the out-of-tree driver only).
 */

enum { NP, RP, IN_TREE_ONLY };

static const struct cc_name {
	const char *name;	/* in /sys/kernel/debug/mlx5/BDF/cc_params */
	const char *ofed;	/* in /sys/class/net/IF/ecn/roce_np or roce_rp */
	u8 side, bits;		/* width of the firmware's field */
	u32 initial;
} cc_names[CC_PARAMS] = {
	{ "rp_clamp_tgt_rate", "clamp_tgt_rate", RP, 1, 0 },
	{ "rp_clamp_tgt_rate_ati", "clamp_tgt_rate_after_time_inc", RP, 1, 1 },
	{ "rp_time_reset", "rpg_time_reset", RP, 32, 300 },
	{ "rp_byte_reset", "rpg_byte_reset", RP, 32, 32767 },
	{ "rp_threshold", "rpg_threshold", RP, 5, 1 },
	{ "rp_ai_rate", "rpg_ai_rate", RP, 32, 5 },
	{ "rp_max_rate", "rpg_max_rate", RP, 32, 0 },
	{ "rp_hai_rate", "rpg_hai_rate", RP, 32, 50 },
	{ "rp_min_dec_fac", "rpg_min_dec_fac", RP, 8, 50 },
	{ "rp_min_rate", "rpg_min_rate", RP, 32, 1 },
	{ "rp_rate_to_set_on_first_cnp", "rate_to_set_on_first_cnp", RP, 32, 0 },
	{ "rp_dce_tcp_g", "dce_tcp_g", RP, 10, 1019 },
	{ "rp_dce_tcp_rtt", "dce_tcp_rtt", RP, 32, 1 },
	{ "rp_rate_reduce_monitor_period", "rate_reduce_monitor_period", RP, 32, 4 },
	{ "rp_initial_alpha_value", "initial_alpha_value", RP, 10, 1023 },
	{ "rp_gd", "rpg_gd", RP, 4, 11 },
	{ "np_min_time_between_cnps", "min_time_between_cnps", NP, 32, 4 },
	{ "np_cnp_dscp", "cnp_dscp", NP, 6, 48 },
#define CC_PRIO_MODE 18
	{ "np_cnp_prio_mode", NULL, IN_TREE_ONLY, 1, 1 },
	{ "np_cnp_prio", "cnp_802p_prio", NP, 3, 6 },
#define CC_RTT_VALID 20
	{ "rtt_resp_dscp_valid", NULL, IN_TREE_ONLY, 1, 0 },
	{ "rtt_resp_dscp", NULL, IN_TREE_ONLY, 6, 0 },
};

static u32 cc_bits(int i)
{
	return GENMASK(cc_names[i].bits - 1, 0);
}

/* The firmware takes the low bits; two fields bring another one with them. */
static void cc_write(struct fake *f, int i, u32 v)
{
	f->cc[i] = v & cc_bits(i);
	if (i == CC_PRIO_MODE + 1)
		f->cc[CC_PRIO_MODE] = 0;
	if (i == CC_RTT_VALID + 1)
		f->cc[CC_RTT_VALID] = 1;
}

static ssize_t cc_read_file(struct file *file, char __user *buf, size_t n, loff_t *pos)
{
	struct cc_file *c = file->private_data;
	char s[12];
	int m = ask(c->f, G_reads);

	if (m < 0)
		return m;
	return simple_read_from_buffer(buf, n, pos, s, scnprintf(s, sizeof(s), "%u\n", c->f->cc[c->i]));
}

static ssize_t cc_write_file(struct file *file, const char __user *buf, size_t n, loff_t *pos)
{
	struct cc_file *c = file->private_data;
	int m = ask(c->f, G_ecn), err;
	u32 v;

	if (m < 0)
		return m;
	err = kstrtou32_from_user(buf, n, 0, &v);
	if (err)
		return err;
	if (m == NORMAL || (m == HALF && cc_names[c->i].side == NP))
		cc_write(c->f, c->i, v);
	return n;
}

static const struct file_operations cc_fops = {
	.owner = THIS_MODULE, .open = simple_open, .read = cc_read_file, .write = cc_write_file,
};

static struct dentry *debug_root;

static void cc_init(struct fake *f)
{
	struct dentry *dir;

	f->debug = debugfs_create_dir(pci_name(f->pdev), debug_root);
	dir = f->pdev->is_virtfn ? NULL : debugfs_create_dir("cc_params", f->debug);
	for (int i = 0; i < CC_PARAMS; i++) {
		f->cc[i] = cc_names[i].initial;
		f->cc_files[i] = (struct cc_file) { f, i };
		if (dir)
			debugfs_create_file(cc_names[i].name, 0600, dir, &f->cc_files[i], &cc_fops);
	}
	memset(f->ecn_on, 1, sizeof(f->ecn_on));
}

#ifdef OFED_VERSION

/* Files are IF/ecn/roce_np/NAME and IF/ecn/roce_np/enable/0. */
static struct fake *fake_above(struct kobject *k, int levels)
{
	while (levels--)
		k = k->parent;
	return netdev_priv(to_net_dev(kobj_to_dev(k)));
}

static int side_of(struct kobject *k)
{
	return strcmp(k->name, "roce_np") ? RP : NP;
}

static int ofed_param(struct kobject *k, const char *name)
{
	for (int i = 0; i < CC_PARAMS; i++)
		if (cc_names[i].side == side_of(k) && !strcmp(cc_names[i].ofed, name))
			return i;
	return -ENOENT;
}

static ssize_t param_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	struct fake *f = fake_above(k, 2);
	int i = ofed_param(k, a->attr.name), m = ask(f, G_reads);

	if (m < 0 || i < 0)
		return min(m, i);
	return sysfs_emit(buf, "%u\n", f->cc[i]);
}

static ssize_t param_store(struct kobject *k, struct kobj_attribute *a, const char *buf, size_t n)
{
	struct fake *f = fake_above(k, 2);
	int i = ofed_param(k, a->attr.name), m = ask(f, G_ecn), err;
	u32 v;

	if (m < 0 || i < 0)
		return min(m, i);
	err = kstrtou32(buf, 0, &v);
	if (err)
		return err;
	if (v & ~cc_bits(i))
		return -EINVAL;
	if (m == NORMAL || (m == HALF && side_of(k) == NP))
		cc_write(f, i, v);
	return n;
}

static ssize_t prio_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	struct fake *f = fake_above(k, 3);
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	return sysfs_emit(buf, "%u\n", f->ecn_on[side_of(k->parent)][*a->attr.name - '0']);
}

static ssize_t prio_store(struct kobject *k, struct kobj_attribute *a, const char *buf, size_t n)
{
	struct fake *f = fake_above(k, 3);
	int m = ask(f, G_ecn), side = side_of(k->parent), err;
	u8 v;

	if (m < 0)
		return m;
	err = kstrtou8(buf, 0, &v);
	if (err)
		return err;
	if (v > 1)
		return -EINVAL;
	if (m == NORMAL || (m == HALF && side == NP))
		f->ecn_on[side][*a->attr.name - '0'] = v;
	return n;
}

static struct kobj_attribute param_attrs[CC_PARAMS];
static struct kobj_attribute prio_attrs[8];
static const char * const prio_names[] = { "0", "1", "2", "3", "4", "5", "6", "7" };

static void ecn_attrs(void)
{
	for (int i = 0; i < CC_PARAMS; i++)
		param_attrs[i] = (struct kobj_attribute) {
			.attr = { .name = cc_names[i].ofed, .mode = 0644 }, .show = param_show, .store = param_store,
		};
	for (int i = 0; i < 8; i++)
		prio_attrs[i] = (struct kobj_attribute) {
			.attr = { .name = prio_names[i], .mode = 0644 }, .show = prio_show, .store = prio_store,
		};
}

static void ecn_remove(struct fake *f)
{
	for (int i = ARRAY_SIZE(f->ecn_dirs) - 1; i >= 0; i--)
		kobject_put(f->ecn_dirs[i]);
}

static int ecn_add(struct fake *f)
{
	static const char * const sides[] = { "roce_np", "roce_rp" };
	struct kobject **d = f->ecn_dirs;
	int err = 0;

	d[0] = kobject_create_and_add("ecn", &f->dev->dev.kobj);
	for (int s = 0; d[0] && s < 2; s++) {
		struct kobject *side = d[1 + 2 * s] = kobject_create_and_add(sides[s], d[0]);
		struct kobject *enable = d[2 + 2 * s] = side ? kobject_create_and_add("enable", side) : NULL;

		if (!enable)
			goto fail;
		for (int i = 0; i < CC_PARAMS && !err; i++)
			if (cc_names[i].side == s)
				err = sysfs_create_file(side, &param_attrs[i].attr);
		for (int i = 0; i < 8 && !err; i++)
			err = sysfs_create_file(enable, &prio_attrs[i].attr);
	}
	if (d[0] && !err)
		return 0;
fail:
	ecn_remove(f);
	return err ?: -ENOMEM;
}

/* Trust as the out-of-tree driver's file sets it: with one entry per DSCP. */
static void trust_dscp(struct fake *f)
{
	for (int i = 0; i < 64; i++) {
		struct dcb_app app = dscp_app(f, i);

		if (!(dcb_ieee_getapp_mask(f->dev, &app) & BIT(app.priority))) {
			app.priority = i >> 3;
			f->dscp2prio[i] = app.priority;
			if (!dcb_ieee_setapp(f->dev, &app))
				f->dscp_apps++;
		}
	}
	f->dscp_trust = true;
}

static void trust_pcp(struct fake *f)
{
	for (int i = 0; i < 64; i++) {
		struct dcb_app app = dscp_app(f, i);

		if (!dcb_ieee_delapp(f->dev, &app))
			f->dscp_apps--;
	}
	f->dscp_trust = false;
}

static ssize_t trust_show(struct device *d, struct device_attribute *a, char *buf)
{
	struct fake *f = netdev_priv(to_net_dev(d));
	int m = ask(f, G_reads);

	if (m < 0)
		return m;
	return sysfs_emit(buf, "%s\n", f->dscp_trust ? "dscp" : "pcp");
}

static ssize_t trust_store(struct device *d, struct device_attribute *a, const char *buf, size_t n)
{
	struct fake *f = netdev_priv(to_net_dev(d));
	bool dscp = sysfs_streq(buf, "dscp");
	int m;

	if (!dscp && !sysfs_streq(buf, "pcp"))
		return -EINVAL;
	if (!rtnl_trylock())
		return restart_syscall();
	m = ask(f, G_trust);
	if (m >= 0 && m != LIE) {
		if (dscp)
			trust_dscp(f);
		else
			trust_pcp(f);
	}
	rtnl_unlock();
	return m < 0 ? m : n;
}
static DEVICE_ATTR_RW(trust);

static struct attribute *qos_attrs[] = { &dev_attr_trust.attr, NULL };
static const struct attribute_group qos_group = { .name = "qos", .attrs = qos_attrs };

#else
static void ecn_attrs(void) { }
static int ecn_add(struct fake *f) { return 0; }
static void ecn_remove(struct fake *f) { }
#endif
