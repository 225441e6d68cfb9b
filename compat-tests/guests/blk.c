/* virtio-blk driver that polls its ring in ring 3: dev=pci|legacy|mmio op=read|write|flush bs=4096 depth=32 count=N
 * span=MiB verify=1. Prints time stamp counter ticks and how often it had to kick the device. */
#include "lib.h"

enum { QSIZE = 256, STATUS_ACK = 1, STATUS_DRIVER = 2, STATUS_OK = 4, STATUS_FEATURES = 8 };
static struct desc { u64 addr; u32 len; u16 flags, next; } *desc = (void *)0x2000000;
static volatile struct { u16 flags, idx, ring[QSIZE]; } *avail;
static volatile struct { u16 flags, idx; struct { u32 id, len; } ring[QSIZE]; } *used;
static struct req { u32 type, prio; u64 sector; u8 pad[8]; u8 status; u8 fill[7]; } *reqs = (void *)0x2100000;
static u8 *const data = (u8 *)0x3000000;

static u64 notify_at, count, depth, bs, span, kicks, errors, mismatches;
static int notify_port, notify_wide, qsize, op, verify;
static u32 rnd = 12345;

static void kick(void) {
    kicks++;
    if (notify_port) outw(notify_port, 0);
    else if (notify_wide) w32(notify_at, 0);
    else w16(notify_at, 0);
}
static void fail(const char *s) { puts("blk: "); puts(s); nl(); finish(0x7e); }

/* Ring for the queue size qsize at 32 MiB, in the legacy layout, which suits modern devices too. */
static void layout(void) {
    avail = (void *)((u64)desc + qsize * 16);
    used = (void *)(((u64)avail + 6 + qsize * 2 + 4095) & ~4095ull);
}

static void setup_legacy(u32 bdf) {
    u32 bar = pci_read(bdf, 0x10);
    if (!(bar & 1)) fail("no legacy port range");
    if (!(bar & ~3u)) { pci_write(bdf, 0x10, 0xc000); bar = 0xc001; }
    u16 io = bar & ~3u;
    pci_write(bdf, 4, pci_read(bdf, 4) | 5);
    outb(io + 18, 0), outb(io + 18, STATUS_ACK | STATUS_DRIVER);
    outl(io + 4, inl(io) & (1 << 9)); /* FLUSH only: write-back */
    outw(io + 14, 0);
    qsize = inw(io + 12);
    if (!qsize) fail("no queue");
    if (qsize > QSIZE) fail("queue larger than 256"); /* a legacy driver cannot choose */
    layout();
    outl(io + 8, (u32)((u64)desc >> 12));
    outb(io + 18, STATUS_ACK | STATUS_DRIVER | STATUS_OK);
    notify_port = io + 16;
}

static u64 bar_of(u32 bdf, u32 n) {
    static u64 top = 0xe0000000;
    u32 reg = 0x10 + n * 4, v = pci_read(bdf, reg), is64 = (v & 6) == 4;
    u64 at = (v & ~15u) | (is64 ? (u64)pci_read(bdf, reg + 4) << 32 : 0);
    if (at && at < 0x100000000ull) return at;
    pci_write(bdf, reg, 0xffffffff);
    u32 size = -(pci_read(bdf, reg) & ~15u);
    if (size < 4096) size = 4096;
    top = (top + size - 1) & ~(u64)(size - 1);
    at = top, top += size;
    pci_write(bdf, reg, at);
    if (is64) pci_write(bdf, reg + 4, 0);
    return at;
}
static void setup_modern(u32 bdf) {
    u64 common = 0, notify = 0;
    u32 mult = 0;
    for (u32 cap = pci_read(bdf, 0x34) & 0xff; cap; cap = pci_read(bdf, cap) >> 8 & 0xff) {
        u32 h = pci_read(bdf, cap);
        if ((h & 0xff) != 9) continue;
        u32 type = h >> 24, off = pci_read(bdf, cap + 8);
        if (type == 1) common = bar_of(bdf, pci_read(bdf, cap + 4) & 7) + off;
        if (type == 2) notify = bar_of(bdf, pci_read(bdf, cap + 4) & 7) + off, mult = pci_read(bdf, cap + 16);
    }
    if (!common || !notify) fail("no modern interface");
    pci_write(bdf, 4, pci_read(bdf, 4) | 6);
    w8(common + 20, 0);
    while (r8(common + 20)) ;
    w8(common + 20, STATUS_ACK | STATUS_DRIVER);
    w32(common, 0);
    u32 f = r32(common + 4) & (1 << 9);
    w32(common + 8, 0), w32(common + 12, f);
    w32(common + 8, 1), w32(common + 12, 1); /* VERSION_1 */
    w8(common + 20, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES);
    if (!(r8(common + 20) & STATUS_FEATURES)) fail("features refused");
    w16(common + 22, 0);
    qsize = r16(common + 24);
    if (!qsize) fail("no queue");
    if (qsize > QSIZE) w16(common + 24, qsize = QSIZE);
    layout();
    w32(common + 32, (u64)desc), w32(common + 36, 0);
    w32(common + 40, (u64)avail), w32(common + 44, 0);
    w32(common + 48, (u64)used), w32(common + 52, 0);
    notify_at = notify + r16(common + 30) * mult;
    w16(common + 28, 1);
    w8(common + 20, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK);
}
static void setup_mmio(void) {
    u64 m = 0;
    for (u64 p = 0xfeb00000; p < 0xfeb00000 + 32 * 512 && !m; p += 512)
        if (r32(p) == 0x74726976 && r32(p + 8) == 2) m = p;
    if (!m) fail("no virtio-mmio block device");
    u32 version = r32(m + 4);
    w32(m + 0x70, 0), w32(m + 0x70, STATUS_ACK | STATUS_DRIVER);
    w32(m + 0x14, 0);
    u32 f = r32(m + 0x10) & (1 << 9);
    w32(m + 0x24, 0), w32(m + 0x20, f);
    if (version == 2) {
        w32(m + 0x24, 1), w32(m + 0x20, 1);
        w32(m + 0x70, STATUS_ACK | STATUS_DRIVER | STATUS_FEATURES);
    } else w32(m + 0x28, 4096);
    w32(m + 0x30, 0);
    qsize = r32(m + 0x34);
    if (!qsize) fail("no queue");
    if (qsize > QSIZE) qsize = QSIZE;
    layout();
    w32(m + 0x38, qsize);
    if (version == 2) {
        w32(m + 0x80, (u64)desc), w32(m + 0x84, 0);
        w32(m + 0x90, (u64)avail), w32(m + 0x94, 0);
        w32(m + 0xa0, (u64)used), w32(m + 0xa4, 0);
        w32(m + 0x44, 1);
    } else w32(m + 0x3c, 4096), w32(m + 0x40, (u64)desc >> 12);
    w32(m + 0x70, STATUS_ACK | STATUS_DRIVER | STATUS_OK | (version == 2 ? STATUS_FEATURES : 0));
    notify_at = m + 0x50, notify_wide = 1;
}

static void fill(u64 slot) {
    struct req *r = reqs + slot;
    u64 blocks = (span << 20) / bs;
    rnd = rnd * 1664525 + 1013904223;
    r->type = op;
    r->sector = op == 4 ? 0 : (rnd >> 4) % blocks * (bs / 512);
    r->status = 0xff;
    if (verify && op == 1) for (u64 i = 0; i < bs; i += 8) *(u64 *)(data + slot * bs + i) = r->sector * 512 + i;
    struct desc *d = desc + slot * 3;
    d[0] = (struct desc){(u64)r, 16, 1, slot * 3 + 1};
    if (op == 4) d[0].next = slot * 3 + 2;
    d[1] = (struct desc){(u64)data + slot * bs, bs, 1 | (op == 0 ? 2 : 0), slot * 3 + 2};
    d[2] = (struct desc){(u64)&r->status, 1, 2, 0};
}
static void check(u64 slot) {
    struct req *r = reqs + slot;
    if (r->status) errors++;
    if (verify && op == 0)
        for (u64 i = 0; i < bs; i += 8) if (*(u64 *)(data + slot * bs + i) != r->sector * 512 + i) { mismatches++; break; }
}
/* Ring 3. */
static void run(void) {
    u64 started = 0, done = 0;
    u16 a = 0, seen = 0;
    u64 t0 = rdtsc(), mark = t0, marked = 0, best = ~0ull;
    while (started < depth && started < count) fill(started), avail->ring[a++ % qsize] = started * 3, started++;
    barrier();
    avail->idx = a;
    fence();
    if (!(used->flags & 1)) kick();
    while (done < count) {
        if (used->idx == seen) { asm volatile("pause"); continue; }
        barrier();
        u16 before = a;
        while (seen != used->idx) {
            barrier();
            u64 slot = used->ring[seen++ % qsize].id / 3;
            check(slot);
            done++;
            if (started < count) fill(slot), avail->ring[a++ % qsize] = slot * 3, started++;
        }
        if (a != before) {
            barrier();
            avail->idx = a;
            fence();
            if (!(used->flags & 1)) kick();
        }
        if (done - marked >= 128) { /* the best stretch: what the host's other work did not disturb */
            u64 now = rdtsc(), cost = (now - mark) * 1024 / (done - marked);
            if (cost < best) best = cost;
            mark = now, marked = done;
        }
    }
    u64 t1 = rdtsc();
    puts("blk"); fieldd("op", op); fieldd("bs", bs); fieldd("depth", depth); fieldd("count", count); fieldd("errors", errors);
    fieldd("mismatches", mismatches); fieldd("tsc", t1 - t0); fieldd("best1024", best); fieldd("kicks", kicks); nl();
    puts("done\r\n");
    finish(0x10);
}
void blk(void) {
    char dev[8] = "pci", name[8] = "read";
    args("dev", dev, sizeof dev);
    args("op", name, sizeof name);
    op = streq(name, "write") ? 1 : streq(name, "flush") ? 4 : 0;
    bs = argn("bs", 4096), depth = argn("depth", 1), count = argn("count", 1000), span = argn("span", 16), verify = argn("verify", 0);
    if (streq(dev, "mmio")) setup_mmio();
    else {
        u32 bdf = 0;
        for (u32 b = 8; b < 256 && !bdf; b++) {
            u32 id = pci_read(b, 0);
            if (id == 0x10011af4 || id == 0x10421af4) bdf = b;
        }
        if (!bdf) fail("no virtio-blk function");
        if (streq(dev, "legacy")) setup_legacy(bdf); else setup_modern(bdf);
    }
    if (depth * 3 > (u64)qsize) depth = qsize / 3;
    if (depth * bs > 12 << 20) fail("too much data in flight");
    enter_user(run);
}
