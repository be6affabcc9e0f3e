/* SPDX-License-Identifier: GPL-2.0 */
/* fakedma.h - what dcbm takes from fakedma: the modes of its files, and whether there is an engine. */
#ifndef FAKEDMA_H
#define FAKEDMA_H

#define GATE_CLASSES(X) X(offloading) X(nr_dma_chan) X(reason_mask) X(counters) X(cpu_mt) X(reads)

enum dcbm_busy {
	BUSY_MIGRATOR = 1,	/* another migrator is registered: offloading=1 gets EBUSY */
	BUSY_CHANNELS = 2,	/* nr_dma_chan gets EBUSY while offloading is 1 */
};

int fakedma_gate(int class);
unsigned int fakedma_busy(void);
unsigned int fakedma_channels(void);

#endif
