/* What a guest can see of its machine: CPUID, MSRs, PCI configuration space, fw_cfg, ACPI tables. */
#include "lib.h"

static void cpuid(u32 leaf, u32 sub, u32 r[4]) {
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}
static void leaf(u32 l, u32 s) {
    u32 r[4];
    cpuid(l, s, r);
    if (!(r[0] | r[1] | r[2] | r[3])) return;
    puts("cpuid "); hex(l, 8); put('.'); hex(s, 2); put(':');
    for (int i = 0; i < 4; i++) put(' '), hex(r[i], 8);
    nl();
}
static void cpuids(void) {
    static const u32 bases[] = {0, 0x40000000, 0x80000000};
    for (int b = 0; b < 3; b++) {
        u32 r[4];
        cpuid(bases[b], 0, r);
        u32 max = r[0] >= bases[b] && r[0] - bases[b] < 0x40 ? r[0] : bases[b] + 1;
        for (u32 l = bases[b]; l <= max; l++) {
            int subs = l == 4 || l == 0xb || l == 0xd || l == 0x1f || l == 0x8000001d ? 10 : l == 7 ? 3 : 1;
            for (int s = 0; s < subs; s++) leaf(l, s);
        }
    }
}
static void msrs(void) {
    static const u32 list[] = {0x17, 0x1b, 0x3a, 0x8b, 0xce, 0xfe, 0x10a, 0x174, 0x175, 0x176, 0x179, 0x17a, 0x1a0, 0x1d9, 0x200,
        0x201, 0x202, 0x203, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x277, 0x2ff, 0x345,
        0x400, 0x480, 0x600, 0x610, 0xc0000080, 0xc0000081, 0xc0000103, 0xc0010015, 0xc001001f, 0xc0010117};
    for (u32 i = 0; i < sizeof list / 4; i++) {
        u32 a = 0, d = 0;
        msr_faulted = 0;
        asm volatile("rdmsr" : "+a"(a), "+d"(d) : "c"(list[i]));
        puts("msr "); hex(list[i], 8); puts(": ");
        if (msr_faulted) puts("#GP"); else hex((u64)d << 32 | a, 16);
        nl();
    }
}
static void pci(void) {
    for (u32 bdf = 0; bdf < 256; bdf++) {
        if ((pci_read(bdf, 0) & 0xffff) == 0xffff) continue;
        for (u32 reg = 0; reg < 256; reg += 4) {
            if (reg % 32 == 0) puts("pci "), hex(bdf >> 3, 2), put('.'), dec(bdf & 7), put(' '), hex(reg, 2), put(':');
            put(' '), hex(pci_read(bdf, reg), 8);
            if (reg % 32 == 28) nl();
        }
        /* size of each base address register */
        if ((pci_read(bdf, 12) >> 16 & 0x7f) != 0) continue;
        u32 cmd = pci_read(bdf, 4);
        pci_write(bdf, 4, cmd & ~3u);
        puts("pci "), hex(bdf >> 3, 2), put('.'), dec(bdf & 7), puts(" sizes:");
        for (u32 reg = 0x10; reg <= 0x30; reg += 4) {
            if (reg == 0x28 || reg == 0x2c) continue;
            u32 old = pci_read(bdf, reg);
            pci_write(bdf, reg, 0xffffffff);
            put(' '), hex(pci_read(bdf, reg), 8);
            pci_write(bdf, reg, old);
        }
        pci_write(bdf, 4, cmd);
        nl();
    }
}
static u8 *const work = (u8 *)0x1000000; /* 16 MiB */
static void table(u64 p) {
    u8 sum = 0;
    u32 n = r32(p + 4);
    puts("acpi ");
    for (int i = 0; i < 4; i++) put(r8(p + i));
    fieldd("length", n); fieldd("revision", r8(p + 8));
    puts(" oem=");
    for (int i = 10; i < 24; i++) put(r8(p + i) >= ' ' ? r8(p + i) : '.');
    for (u32 i = 0; i < n; i++) sum += r8(p + i);
    fieldd("sum", sum); field("fnv", fnv((u8 *)p, n), 8);
    nl();
}
/* Tables as the firmware has laid them out: follow the RSDP. */
static void acpi(void) {
    for (u64 p = 0xe0000; p < 0x100000; p += 16)
        if (*(volatile u64 *)p == 0x2052545020445352ull) {
            int wide = r8(p + 15) >= 2 && *(u64 *)(p + 24);
            u64 rsdt = wide ? *(u64 *)(p + 24) : r32(p + 16);
            table(rsdt);
            for (u64 e = rsdt + 36; e < rsdt + r32(rsdt + 4); e += wide ? 8 : 4) {
                u64 t = r32(e);
                table(t);
                if (r32(t) == 0x50434146) table(r32(t + 40)); /* FACP: DSDT */
            }
            return;
        }
    puts("acpi none\r\n");
}
static void fw_cfg(void) {
    static const u16 keys[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x11, 0x14, 0x16, 0x17};
    for (u32 i = 0; i < sizeof keys / 2; i++) {
        u64 v = 0;
        if (!fw_select(keys[i], &v, 8)) { puts("fw_cfg none\r\n"); return; }
        puts("fw_cfg key "); hex(keys[i], 2); puts(": "); hex(v, 16); nl();
    }
    u32 n = 0;
    fw_select(0x19, &n, 4);
    n = __builtin_bswap32(n);
    static u8 dir[4 + 64 * 64];
    if (n > 64) n = 64;
    fw_select(0x19, dir, 4 + n * 64);
    puts("fw_cfg files: "); dec(n); nl();
    for (u32 i = 0; i < n; i++) {
        u8 *e = dir + 4 + i * 64;
        u32 size = __builtin_bswap32(*(u32 *)e);
        u16 key = __builtin_bswap16(*(u16 *)(e + 4));
        puts("fw_cfg "); puts((char *)e + 8); fieldd("size", size); field("key", key, 4);
        if (size <= 1 << 20 && argn("hash", 1)) {
            fw_select(key, work, size);
            field("fnv", fnv(work, size), 8);
            if (size <= 32) { puts(" data="); for (u32 j = 0; j < size; j++) hex(work[j], 2); }
        }
        nl();
        if (streq((char *)e + 8, "etc/table-loader"))
            for (u32 j = 0; j + 128 <= size && work[j]; j += 128) {
                puts("loader"); fieldd("command", r32((u64)work + j)); put(' ');
                puts((char *)work + j + 4); put(' '); puts((char *)work + j + 60); put(' ');
                for (u32 k = 116; k < 128; k++) hex(work[j + k], 2);
                nl();
            }
    }
    u32 size = 0;
    int key = fw_file("etc/acpi/tables", &size);
    if (key && size <= 1 << 20) {
        fw_select(key, work, size);
        for (u64 p = (u64)work, end = p + size; p + 36 < end && r32(p) && r32(p + 4) >= 36 && r32(p + 4) < size; p += r32(p + 4)) {
            while (p < end && !r8(p)) p++;
            table(p);
        }
    }
}
static void indexed(const char *name, u16 port, u32 from, u32 to) {
    for (u32 i = from; i <= to; i++) {
        if ((i - from) % 16 == 0) puts("left "), puts(name), put(' '), hex(i, 2), put(':');
        outb(port, i);
        put(' ');
        hex(inb(port + 1), 2);
        if ((i - from) % 16 == 15 || i == to) nl();
    }
}
static void left_port(const char *name, u64 value, int digits) {
    puts("left "); puts(name); puts(": "); hex(value, digits); nl();
}
/* What firmware leaves in the chipset, the processor and the BIOS data area for the system that it boots. */
static void left(void) {
    left_port("pic-mask", inb(0x21) << 8 | inb(0xa1), 4);
    left_port("elcr", inb(0x4d0) << 8 | inb(0x4d1), 4);
    outb(0x43, 0xee); /* status of all three counters, without the output pin */
    left_port("pit0", inb(0x40) & 0x3f, 2);
    left_port("pit1", inb(0x41) & 0x3f, 2);
    left_port("pit2", inb(0x42) & 0x3f, 2);
    left_port("port61", inb(0x61) & 0xf, 2);
    left_port("port92", inb(0x92), 2);
    left_port("i8042-status", inb(0x64), 2);
    if (inb(0x64) != 0xff) {
        outb(0x64, 0x20);
        for (int i = 0; i < 1000 && !(inb(0x64) & 1); i++);
        left_port("i8042-mode", inb(0x60), 2);
    }
    indexed("cmos", 0x70, 0x0a, 0x0b);
    indexed("cmos", 0x70, 0x0d, 0x7f);
    left_port("pm1", inl(0x600), 8);
    left_port("pm1-control", inw(0x604), 4);
    left_port("gpe0", inl(0xafe0), 8);
    left_port("lapic-svr", r32(0xfee000f0), 8);
    left_port("lapic-lint0", r32(0xfee00350), 8);
    left_port("lapic-lint1", r32(0xfee00360), 8);
    left_port("vga-misc", inb(0x3cc), 2);
    indexed("vga-seq", 0x3c4, 0, 4);
    indexed("vga-crtc", 0x3d4, 0, 0xd);
    indexed("vga-crtc", 0x3d4, 0x10, 0x18);
    indexed("vga-gfx", 0x3ce, 0, 8);
    for (int i = 0; i < 3; i++) { /* serial ports: line control, divisor, interrupt enable */
        u16 p = 0x2f8 + i * 0xf0;
        if (p == 0x3f8) continue; /* this guest's console */
        left_port("uart", inb(p + 3) << 16 | inb(p + 1) << 8 | inb(p + 4), 6);
    }
    for (u64 p = 0x400; p < 0x4b0; p += 2) {
        /* Not what depends on firmware's text and option ROM: cursor, clock ticks, diskette calibration, pointer into the ROM. */
        int varies = p == 0x450 || (p & ~2ull) == 0x46c || p == 0x48e || (p & ~2ull) == 0x4a8;
        if (p % 16 == 0) puts("left bda "), hex(p, 3), put(':');
        put(' ');
        if (varies) puts("...."); else hex(r16(p), 4);
        if (p % 16 == 14) nl();
    }
}
void probe(void) {
    char what[64] = "cpuid,msr,pci,fw_cfg,acpi";
    args("what", what, sizeof what);
    for (char *p = what; *p;) {
        char *e = p;
        while (*e && *e != ',') e++;
        int more = *e == ',';
        *e = 0;
        if (streq(p, "cpuid")) cpuids();
        if (streq(p, "msr")) msrs();
        if (streq(p, "pci")) pci();
        if (streq(p, "fw_cfg")) fw_cfg();
        if (streq(p, "acpi")) acpi();
        if (streq(p, "left")) left();
        p = e + more;
    }
}
