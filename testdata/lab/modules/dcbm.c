// SPDX-License-Identifier: GPL-2.0
/*
 * dcbm.c - the control files of page migration by DMA, in the place and with the
 * semantics of one of its postings, chosen by "rev" at load time:
 *
 *	1	/sys/kernel/dcbm/offloading
 *	2, 3	/sys/kernel/dcbm/{offloading,nr_dma_chan}, /sys/kernel/cpu_mt/{offloading,threads,cpuselect}
 *	4	/sys/kernel/dcbm/{offloading,nr_dma_chan,folios_migrated,folios_failures}
 *	5	the same four in /sys/module/dcbm
 *	6	those and reason_mask in /sys/module/dcbm/parameters
 *
 * Nothing is offloaded. While offloading is on and fakedma has channels, the
 * migrations that the kernel does by itself are counted as if this had done
 * them. How the files misbehave is set by the parameters of fakedma.
 */
#include <linux/kobject.h>
#include <linux/migrate_mode.h>
#include <linux/module.h>
#include <linux/mm.h>
#include <linux/huge_mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/tracepoint.h>

#include "fakedma.h"
enum {
#define X(c) G_##c,
	GATE_CLASSES(X)
#undef X
};
enum { NORMAL, LIE, HALF }; /* as in gate.h */

static int rev = 6;
module_param(rev, int, 0); /* unseen in sysfs, where "parameters" is the interface of rev 6 */
MODULE_PARM_DESC(rev, "posting whose files are shown, 1 to 6");

static const char * const reasons[] = {
	"compaction", "memory_failure", "memory_hotplug", "syscall_or_cpuset", "mempolicy_mbind",
	"numa_misplaced", "contig_range", "longterm_pin", "demotion", "damon",
};
#define ALL_REASONS ((1u << ARRAY_SIZE(reasons)) - 1)

static bool offloading;
static unsigned int nr_dma_chan = 1;
static unsigned int reason_mask = ALL_REASONS;
static atomic_long_t folios_migrated, folios_failures;
static bool mt_offloading;
static unsigned int mt_threads = 4, mt_cpuselect;

/* One file: store gives the count that the kernel is to report, or an error. */
struct knob {
	const char *name;
	int class;
	int (*show)(char *buf);
	int (*store)(const char *buf, int mode, int count);
	umode_t mode;
	struct kobj_attribute kobj_attr;	/* below a plain directory */
	struct module_attribute mod_attr;	/* in the module's own */
};

static int show_bool(char *buf)
{
	return sysfs_emit(buf, "%d\n", offloading);
}

static int set_offloading(bool on)
{
	if (on && rev >= 4 && fakedma_busy() & BUSY_MIGRATOR)
		return -EBUSY;
	offloading = on;
	return 0;
}

static int store_bool(const char *buf, int mode, int count)
{
	bool on;
	int err = kstrtobool(buf, &on);

	if (!err && mode != LIE)
		err = set_offloading(on);
	return err ?: count;
}

/* The first posting, and cpu_mt, tell the size of an int whatever they were given. */
static int store_int(const char *buf, int mode, bool *to)
{
	int v, err = kstrtoint(buf, 0, &v);

	if (err)
		return err;
	if (v != 0 && v != 1)
		return -EINVAL;
	if (mode != LIE)
		*to = v;
	return sizeof(int);
}

static int store_first(const char *buf, int mode, int count)
{
	return store_int(buf, mode, &offloading);
}

static int show_chan(char *buf)
{
	return sysfs_emit(buf, "%u\n", nr_dma_chan);
}

static int store_range(const char *buf, int mode, int count, unsigned int lo, unsigned int hi, unsigned int *to)
{
	unsigned int v;
	int err = kstrtouint(buf, 0, &v);

	if (err)
		return err;
	if (v < lo || v > hi)
		return -EINVAL;
	if (mode != LIE)
		*to = v;
	return count;
}

static int store_chan(const char *buf, int mode, int count)
{
	if (offloading && fakedma_busy() & BUSY_CHANNELS)
		return -EBUSY;
	return store_range(buf, mode, count, 1, 16, &nr_dma_chan);
}

static int show_migrated(char *buf)
{
	return sysfs_emit(buf, "%lu\n", atomic_long_read(&folios_migrated));
}

static int show_failures(char *buf)
{
	return sysfs_emit(buf, "%lu\n", atomic_long_read(&folios_failures));
}

/* Whatever is written, it is 0 then. */
static int store_migrated(const char *buf, int mode, int count)
{
	if (mode != LIE)
		atomic_long_set(&folios_migrated, 0);
	return count;
}

static int store_failures(const char *buf, int mode, int count)
{
	if (mode != LIE)
		atomic_long_set(&folios_failures, 0);
	return count;
}

static int show_reasons(char *buf)
{
	int n = 0;

	for (int i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reason_mask & BIT(i))
			n += sysfs_emit_at(buf, n, "%s%s", n ? "," : "", reasons[i]);
	return n + sysfs_emit_at(buf, n, "%s\n", n ? "" : "none");
}

/* A number, a list of names, "all" or "none". */
static int parse_reasons(char *s, bool first_only, unsigned int *mask)
{
	char *word;

	s = strim(s);
	*mask = 0;
	if (!strcmp(s, "none"))
		return 0;
	if (!strcmp(s, "all")) {
		*mask = ALL_REASONS;
		return 0;
	}
	if (!kstrtouint(s, 0, mask))
		return *mask & ~ALL_REASONS ? -EINVAL : 0;
	*mask = 0;
	while ((word = strsep(&s, ","))) {
		int i = match_string(reasons, ARRAY_SIZE(reasons), strim(word));

		if (i < 0)
			return -EINVAL;
		if (!first_only || !*mask)
			*mask |= BIT(i);
	}
	return 0;
}

static int store_reasons(const char *buf, int mode, int count)
{
	char *s = kstrndup(buf, count, GFP_KERNEL);
	unsigned int mask;
	int err;

	if (!s)
		return -ENOMEM;
	err = parse_reasons(s, mode == HALF, &mask);
	kfree(s);
	if (!err && mode != LIE)
		reason_mask = mask;
	return err ?: count;
}

static int show_mt(char *buf)
{
	return sysfs_emit(buf, "%d\n", mt_offloading);
}

static int store_mt(const char *buf, int mode, int count)
{
	return store_int(buf, mode, &mt_offloading);
}

static int show_threads(char *buf)
{
	return sysfs_emit(buf, "%u\n", mt_threads);
}

static int store_threads(const char *buf, int mode, int count)
{
	return store_range(buf, mode, count, 1, 32, &mt_threads);
}

static int show_cpuselect(char *buf)
{
	return sysfs_emit(buf, "%u\n", mt_cpuselect);
}

static int store_cpuselect(const char *buf, int mode, int count)
{
	return store_range(buf, mode, count, 0, 1, &mt_cpuselect);
}

/* The files that a revision shows are the first ones of this list. */
static struct knob dcbm_files[] = {
	{ "offloading", G_offloading, show_bool, store_bool, 0644 },
	{ "nr_dma_chan", G_nr_dma_chan, show_chan, store_chan, 0644 },
	{ "folios_migrated", G_counters, show_migrated, store_migrated, 0644 },
	{ "folios_failures", G_counters, show_failures, store_failures, 0644 },
	{ "reason_mask", G_reason_mask, show_reasons, store_reasons, 0644 },
};
static const int files_of[] = { 0, 1, 2, 2, 4, 4, 5 };

static struct knob mt_files[] = {
	{ "offloading", G_cpu_mt, show_mt, store_mt, 0644 },
	{ "threads", G_cpu_mt, show_threads, store_threads, 0644 },
	{ "cpuselect", G_cpu_mt, show_cpuselect, store_cpuselect, 0644 },
};

static ssize_t file_show(struct knob *f, char *buf)
{
	int m = fakedma_gate(G_reads);

	return m < 0 ? m : f->show(buf);
}

static ssize_t file_store(struct knob *f, const char *buf, size_t n)
{
	int m = fakedma_gate(f->class);

	return m < 0 ? m : f->store(buf, m, n);
}

static ssize_t kobj_show(struct kobject *k, struct kobj_attribute *a, char *buf)
{
	return file_show(container_of(a, struct knob, kobj_attr), buf);
}

static ssize_t kobj_store(struct kobject *k, struct kobj_attribute *a, const char *buf, size_t n)
{
	return file_store(container_of(a, struct knob, kobj_attr), buf, n);
}

static ssize_t mod_show(struct module_attribute *a, struct module_kobject *k, char *buf)
{
	return file_show(container_of(a, struct knob, mod_attr), buf);
}

static ssize_t mod_store(struct module_attribute *a, struct module_kobject *k, const char *buf, size_t n)
{
	return file_store(container_of(a, struct knob, mod_attr), buf, n);
}

static int add_file(struct kobject *dir, struct knob *f)
{
	struct attribute attr = { .name = f->name, .mode = f->mode };

	f->kobj_attr = (struct kobj_attribute) { .attr = attr, .show = kobj_show, .store = kobj_store };
	f->mod_attr = (struct module_attribute) { .attr = attr, .show = mod_show, .store = mod_store };
	return sysfs_create_file(dir, dir == &THIS_MODULE->mkobj.kobj ? &f->mod_attr.attr : &f->kobj_attr.attr);
}

static struct tracepoint *migrations;

static void count_migration(void *data, unsigned long succeeded, unsigned long failed, unsigned long thp_succeeded,
			    unsigned long thp_failed, unsigned long thp_split, unsigned long large_folio_split,
			    enum migrate_mode mode, int reason)
{
	if (READ_ONCE(offloading) && fakedma_channels() && READ_ONCE(reason_mask) & BIT(reason))
		atomic_long_add(succeeded - thp_succeeded * (HPAGE_PMD_NR - 1), &folios_migrated);
}

static void find_migrations(struct tracepoint *t, void *data)
{
	if (!strcmp(t->name, "mm_migrate_pages"))
		migrations = t;
}

static struct kobject *dir, *mt_dir; /* made by this module */

static void remove_files(void)
{
	if (rev == 5)
		for (int i = 0; i < files_of[rev]; i++)
			sysfs_remove_file(&THIS_MODULE->mkobj.kobj, &dcbm_files[i].mod_attr.attr);
	kobject_put(dir);
	kobject_put(mt_dir);
}

static int add_files(void)
{
	struct kobject *parent = rev < 5 ? kernel_kobj : &THIS_MODULE->mkobj.kobj;
	int err = 0;

	if (rev != 5) {
		dir = kobject_create_and_add(rev == 6 ? "parameters" : "dcbm", parent);
		if (!dir)
			return -ENOMEM;
	}
	if (rev == 1)
		dcbm_files[0].mode = 0664;
	if (rev == 1)
		dcbm_files[0].store = store_first;
	for (int i = 0; i < files_of[rev] && !err; i++)
		err = add_file(dir ?: parent, &dcbm_files[i]);
	if (rev != 2 && rev != 3)
		return err;
	mt_dir = kobject_create_and_add("cpu_mt", kernel_kobj);
	if (!mt_dir)
		return -ENOMEM;
	for (int i = 0; i < ARRAY_SIZE(mt_files) && !err; i++)
		err = add_file(mt_dir, &mt_files[i]);
	return err;
}

static int __init f_init(void)
{
	int err;

	if (rev < 1 || rev > 6)
		return -EINVAL;
	for_each_kernel_tracepoint(find_migrations, NULL);
	if (!migrations)
		return -ENOENT;
	err = tracepoint_probe_register(migrations, count_migration, NULL);
	if (err)
		return err;
	err = add_files();
	if (err) {
		remove_files();
		tracepoint_probe_unregister(migrations, count_migration, NULL);
		tracepoint_synchronize_unregister();
	}
	return err;
}

static void __exit f_exit(void)
{
	remove_files();
	tracepoint_probe_unregister(migrations, count_migration, NULL);
	tracepoint_synchronize_unregister();
}

module_init(f_init);
module_exit(f_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("fake control files of page migration by DMA, for tests");
