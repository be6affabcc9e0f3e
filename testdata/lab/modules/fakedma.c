// SPDX-License-Identifier: GPL-2.0
/*
 * fakedma.c - DMA engines with memory copy channels in /sys/class/dma, and none
 * that copies anything: every request for a transfer is turned down. Engines are
 * platform devices, as many as "devices" says, and PCI devices that are bound by
 * driver_override, which have a real address and NUMA node.
 *
 * It also holds the modes of dcbm's files, whose own module has no room for
 * them: its parameters are the interface under test.
 */
#include "fakedma.h"
#include "gate.h"

#include <linux/dmaengine.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/slab.h>

static unsigned int channels = 2;
module_param(channels, uint, 0444);
MODULE_PARM_DESC(channels, "channels of an engine");

static unsigned int devices = 1;
module_param(devices, uint, 0444);
MODULE_PARM_DESC(devices, "engines that are platform devices");

static int first_node = NUMA_NO_NODE;
module_param_named(numa_node, first_node, int, 0444);
MODULE_PARM_DESC(numa_node, "NUMA node of the first platform device; those after it are on the following nodes; -1: none");

static char *driver = "ptdma";
module_param(driver, charp, 0444);
MODULE_PARM_DESC(driver, "name of the driver of the engines");

static unsigned int busy;
module_param(busy, uint, 0644);
MODULE_PARM_DESC(busy, "dcbm: 1 another migrator is registered, 2 nr_dma_chan is busy while offloading is 1, 3 both");

struct engine {
	struct dma_device dma;
	struct dma_chan chan[];
};

static atomic_t live_channels;

int fakedma_gate(int class)
{
	return gate(class);
}
EXPORT_SYMBOL_GPL(fakedma_gate);

unsigned int fakedma_busy(void)
{
	return READ_ONCE(busy);
}
EXPORT_SYMBOL_GPL(fakedma_busy);

unsigned int fakedma_channels(void)
{
	return atomic_read(&live_channels);
}
EXPORT_SYMBOL_GPL(fakedma_channels);

static struct dma_async_tx_descriptor *no_memcpy(struct dma_chan *c, dma_addr_t dst, dma_addr_t src, size_t n,
						 unsigned long flags)
{
	return NULL;
}

static enum dma_status no_status(struct dma_chan *c, dma_cookie_t k, struct dma_tx_state *s)
{
	return DMA_ERROR;
}

static void no_issue(struct dma_chan *c)
{
}

static void engine_release(struct dma_device *d)
{
	kfree(container_of(d, struct engine, dma));
}

static int engine_add(struct device *dev)
{
	struct engine *e = kzalloc(struct_size(e, chan, channels), GFP_KERNEL);
	int err;

	if (!e)
		return -ENOMEM;
	e->dma.dev = dev;
	dma_cap_set(DMA_MEMCPY, e->dma.cap_mask);
	dma_cap_set(DMA_PRIVATE, e->dma.cap_mask); /* only for who asks by name */
	e->dma.device_prep_dma_memcpy = no_memcpy;
	e->dma.device_tx_status = no_status;
	e->dma.device_issue_pending = no_issue;
	e->dma.device_release = engine_release;
	INIT_LIST_HEAD(&e->dma.channels);
	for (unsigned int i = 0; i < channels; i++) {
		e->chan[i].device = &e->dma;
		list_add_tail(&e->chan[i].device_node, &e->dma.channels);
	}
	err = dma_async_device_register(&e->dma);
	if (err) {
		kfree(e);
		return err;
	}
	dev_set_drvdata(dev, e);
	atomic_add(channels, &live_channels);
	return 0;
}

static void engine_del(struct device *dev)
{
	struct engine *e = dev_get_drvdata(dev);

	atomic_sub(channels, &live_channels);
	dma_async_device_unregister(&e->dma); /* engine_release follows */
}

static int p_probe(struct platform_device *p)
{
	return engine_add(&p->dev);
}

static void p_remove(struct platform_device *p)
{
	engine_del(&p->dev);
}

static struct platform_driver p_driver = { .probe = p_probe, .remove_new = p_remove };

static int pci_probe(struct pci_dev *p, const struct pci_device_id *id)
{
	int err = pcim_enable_device(p);

	return err ?: engine_add(&p->dev);
}

static void pci_remove(struct pci_dev *p)
{
	engine_del(&p->dev);
}

static const struct pci_device_id pci_ids[] = { { } }; /* driver_override alone binds */
static struct pci_driver pci_engine = { .id_table = pci_ids, .probe = pci_probe, .remove = pci_remove };

static struct platform_device **pdevs;

static void pdevs_del(void)
{
	for (unsigned int i = 0; i < devices; i++)
		platform_device_unregister(pdevs[i]);
	kfree(pdevs);
}

static int pdevs_add(void)
{
	pdevs = kcalloc(devices, sizeof(*pdevs), GFP_KERNEL);
	for (unsigned int i = 0; pdevs && i < devices; i++) {
		struct platform_device *p = platform_device_alloc(driver, i);
		int err = p ? 0 : -ENOMEM;

		if (!err && first_node >= 0)
			set_dev_node(&p->dev, (first_node + i) % num_online_nodes());
		if (!err)
			err = platform_device_add(p);
		if (err) {
			platform_device_put(p);
			pdevs_del();
			return err;
		}
		pdevs[i] = p;
	}
	return pdevs ? 0 : -ENOMEM;
}

static int __init f_init(void)
{
	int err;

	if (!channels || channels > 256 || devices > 256 || first_node >= (int)num_online_nodes())
		return -EINVAL;
	p_driver.driver.name = driver;
	pci_engine.name = driver;
	err = platform_driver_register(&p_driver);
	if (err)
		return err;
	err = pci_register_driver(&pci_engine);
	if (err)
		goto no_pci;
	err = pdevs_add();
	if (err)
		goto no_devices;
	return 0;
no_devices:
	pci_unregister_driver(&pci_engine);
no_pci:
	platform_driver_unregister(&p_driver);
	return err;
}

static void __exit f_exit(void)
{
	gate_open();
	pdevs_del();
	pci_unregister_driver(&pci_engine);
	platform_driver_unregister(&p_driver);
}

module_init(f_init);
module_exit(f_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("fake DMA engines for tests, and the modes of dcbm");
