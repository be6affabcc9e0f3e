/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fakenic_queues.h - the queues of an interface that is up: a NAPI instance and
 * a page pool each, with as many pages as a real driver's receive ring holds,
 * so that "page-pool-get" of the netdev netlink family shows them.
 */

static bool fill = true;
module_param(fill, bool, 0644);
MODULE_PARM_DESC(fill, "receive rings hold pages; off: only the pools are there");

static unsigned int reopen_ms = 50;
module_param(reopen_ms, uint, 0644);
MODULE_PARM_DESC(reopen_ms, "how long the carrier is gone while queues are reopened");

#define RX_PAD (SKB_DATA_ALIGN(sizeof(struct skb_shared_info)) + ETH_HLEN)

/* Pages of a receive ring, and their order. */
static u32 ring_pages(const struct cfg *c, u32 *order)
{
	u32 size = c->mtu + RX_PAD;

#ifdef FAKE_MANA
	u32 alloc = ALIGN(size, 64);

	if (c->flags & FLAG_FULL_PAGE || size > PAGE_SIZE / 2) {
		*order = get_order(alloc);
		return c->rx;
	}
	*order = 0;
	return DIV_ROUND_UP(c->rx, PAGE_SIZE / alloc);
#else
	u32 stride = size <= PAGE_SIZE ? roundup_pow_of_two(size) : ALIGN(size, 256);

	*order = 0;
	return min(DIV_ROUND_UP(c->rx * stride, (u32)PAGE_SIZE), 32768);
#endif
}

static int f_poll(struct napi_struct *napi, int budget)
{
	napi_complete_done(napi, 0);
	return 0;
}

static void queue_close(struct queue *q)
{
	for (u32 i = 0; i < q->n; i++)
		page_pool_put_full_page(q->pool, q->pages[i], false);
	kvfree(q->pages);
	napi_disable(&q->napi);
	if (q->pool)
		page_pool_destroy(q->pool);
	netif_napi_del(&q->napi);
}

static void queues_close(struct queues *qs)
{
	for (u32 i = 0; i < qs->n; i++)
		queue_close(&qs->q[i]);
	kvfree(qs);
}

static int queue_open(struct fake *f, const struct cfg *c, struct queue *q, u32 idx)
{
	u32 order, n = ring_pages(c, &order);
	struct page_pool_params p = {
		.order = order, .pool_size = n + 1, .nid = dev_to_node(&f->pdev->dev), .dev = &f->pdev->dev,
		.napi = &q->napi, .netdev = f->dev, .queue_idx = idx,
	};
	struct page_pool *pool;

	netif_napi_add(f->dev, &q->napi, f_poll);
	napi_enable(&q->napi);
	if (f->nvec > 1)
		netif_napi_set_irq(&q->napi, pci_irq_vector(f->pdev, 1 + idx % (f->nvec - 1)));
	pool = page_pool_create(&p);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	q->pool = pool;
	if (!fill)
		return 0;
	q->pages = kvcalloc(n, sizeof(*q->pages), GFP_KERNEL);
	if (!q->pages)
		return -ENOMEM;
	while (q->n < n) {
		q->pages[q->n] = page_pool_alloc_pages(pool, GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY);
		if (!q->pages[q->n])
			return -ENOMEM;
		q->n++;
		cond_resched();
	}
	return 0;
}

static struct queues *queues_open(struct fake *f, const struct cfg *c)
{
	struct queues *qs = kvzalloc(struct_size(qs, q, c->channels), GFP_KERNEL);
	int err;

	if (!qs)
		return ERR_PTR(-ENOMEM);
	while (qs->n < c->channels) {
		u32 i = qs->n++;

		err = queue_open(f, c, &qs->q[i], i);
		if (err) {
			queues_close(qs);
			return ERR_PTR(err);
		}
	}
	return qs;
}

/* Puts qs (or NULL) in the place of the open queues. Under RTNL. */
static void queues_swap(struct fake *f, struct queues *qs)
{
	struct queues *old = f->queues;

	for (u32 i = 0; old && i < old->n; i++) {
		netif_queue_set_napi(f->dev, i, NETDEV_QUEUE_TYPE_RX, NULL);
		netif_queue_set_napi(f->dev, i, NETDEV_QUEUE_TYPE_TX, NULL);
	}
	for (u32 i = 0; qs && i < qs->n; i++) {
		netif_queue_set_napi(f->dev, i, NETDEV_QUEUE_TYPE_RX, &qs->q[i].napi);
		netif_queue_set_napi(f->dev, i, NETDEV_QUEUE_TYPE_TX, &qs->q[i].napi);
	}
	f->queues = qs;
	if (old)
		queues_close(old);
}
