/* SPDX-License-Identifier: GPL-2.0 */
/*
 * gate.h - how a fake device misbehaves: one module parameter per class of
 * settings holds a mode, and every operation asks gate() before it acts.
 *
 *	normal	do it
 *	lie	say that it was done, and change nothing
 *	fail	refuse with the error of the parameter "errno"
 *	block	do not answer until the mode is changed (with block_ms: for that long)
 *	half	take the first of the values that come together
 *
 * The includer defines GATE_CLASSES(X) as a list X(name) before.
 */
#ifndef GATE_H
#define GATE_H

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/wait.h>

enum gate_mode { NORMAL, LIE, HALF, FAIL, BLOCK };

enum gate_class {
#define X(c) G_##c,
	GATE_CLASSES(X)
#undef X
	G_CLASSES
};

static int gate_modes[G_CLASSES];
static DECLARE_WAIT_QUEUE_HEAD(gate_wait);

static const char * const gate_words[] = {
	[NORMAL] = "normal", [LIE] = "lie", [HALF] = "half", [FAIL] = "fail", [BLOCK] = "block",
};

static int gate_set(const char *val, const struct kernel_param *kp)
{
	int m = sysfs_match_string(gate_words, val);

	if (m < 0)
		return m;
	WRITE_ONCE(*(int *)kp->arg, m);
	wake_up_all(&gate_wait);
	return 0;
}

static int gate_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%s\n", gate_words[READ_ONCE(*(int *)kp->arg)]);
}

static const struct kernel_param_ops gate_ops = { .set = gate_set, .get = gate_get };

#define X(c) module_param_cb(c, &gate_ops, &gate_modes[G_##c], 0644); \
	MODULE_PARM_DESC(c, "normal, lie, fail, block or half");
GATE_CLASSES(X)
#undef X

static const struct { const char *name; int number; } gate_errors[] = {
	{ "EOPNOTSUPP", EOPNOTSUPP }, { "EIO", EIO }, { "EINVAL", EINVAL },
	{ "EBUSY", EBUSY }, { "ENOMEM", ENOMEM }, { "EPERM", EPERM },
};
static int gate_error = EOPNOTSUPP;

static int gate_error_set(const char *val, const struct kernel_param *kp)
{
	for (int i = 0; i < ARRAY_SIZE(gate_errors); i++)
		if (sysfs_streq(val, gate_errors[i].name)) {
			WRITE_ONCE(gate_error, gate_errors[i].number);
			return 0;
		}
	return -EINVAL;
}

static int gate_error_get(char *buf, const struct kernel_param *kp)
{
	for (int i = 0; i < ARRAY_SIZE(gate_errors); i++)
		if (gate_errors[i].number == READ_ONCE(gate_error))
			return sysfs_emit(buf, "%s\n", gate_errors[i].name);
	return -EINVAL;
}

static const struct kernel_param_ops gate_error_ops = { .set = gate_error_set, .get = gate_error_get };
module_param_cb(errno, &gate_error_ops, NULL, 0644);
MODULE_PARM_DESC(errno, "error of mode fail: EOPNOTSUPP, EIO, EINVAL, EBUSY, ENOMEM or EPERM");

static unsigned int block_ms;
module_param(block_ms, uint, 0644);
MODULE_PARM_DESC(block_ms, "mode block answers after this many milliseconds; 0: when the mode is changed");

static bool killable;
module_param(killable, bool, 0644);
MODULE_PARM_DESC(killable, "mode block ends when the caller is killed");

/*
 * Gives NORMAL, LIE or HALF, or a negative error. May sleep. What was blocked
 * is done once it is let through.
 */
static int gate(enum gate_class c)
{
	int *mode = &gate_modes[c];

	while (READ_ONCE(*mode) == BLOCK) {
		unsigned int ms = READ_ONCE(block_ms);
		long left = ms ? msecs_to_jiffies(ms) : MAX_SCHEDULE_TIMEOUT;

		if (READ_ONCE(killable))
			left = wait_event_killable_timeout(gate_wait, READ_ONCE(*mode) != BLOCK, left);
		else
			left = wait_event_timeout(gate_wait, READ_ONCE(*mode) != BLOCK, left);
		if (left < 0)
			return -EINTR;
		if (!left) /* the time is up */
			return NORMAL;
	}
	switch (READ_ONCE(*mode)) {
	case FAIL:
		return -READ_ONCE(gate_error);
	case LIE:
		return LIE;
	case HALF:
		return HALF;
	}
	return NORMAL;
}

/* Lets everybody through, so that the module can go. */
static void gate_open(void)
{
	for (int i = 0; i < G_CLASSES; i++)
		WRITE_ONCE(gate_modes[i], NORMAL);
	wake_up_all(&gate_wait);
}

#endif
