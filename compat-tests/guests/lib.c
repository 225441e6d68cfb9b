#include "lib.h"

u64 irq_count[64];
int msr_faulted;
static char cmdline[2048];

void put(char c) {
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f8, c);
}
void puts(const char *s) { while (*s) put(*s++); }
void nl(void) { puts("\r\n"); }
void hex(u64 v, int digits) { while (digits--) put("0123456789abcdef"[v >> (digits * 4) & 15]); }
void dec(u64 v) {
    char b[21];
    int i = 20;
    b[i] = 0;
    do b[--i] = '0' + v % 10; while (v /= 10);
    puts(b + i);
}
void field(const char *name, u64 v, int digits) { put(' '); puts(name); put('='); hex(v, digits); }
void fieldd(const char *name, u64 v) { put(' '); puts(name); put('='); dec(v); }
int streq(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}
u32 fnv(const u8 *p, u64 n) {
    u32 h = 2166136261u;
    while (n--) h = (h ^ *p++) * 16777619u;
    return h;
}

/* The word behind key= in the arguments, or 0. */
static const char *find(const char *key) {
    for (const char *p = cmdline; *p;) {
        const char *k = key, *q = p;
        while (*k && *k == *q) k++, q++;
        if (!*k && *q == '=') return q + 1;
        while (*p && *p != ' ') p++;
        while (*p == ' ') p++;
    }
    return 0;
}
int args(const char *key, char *out, int size) {
    const char *p = find(key);
    int i = 0;
    if (!p) return 0;
    while (*p && *p != ' ' && i < size - 1) out[i++] = *p++;
    out[i] = 0;
    return 1;
}
u64 argn(const char *key, u64 def) {
    const char *p = find(key);
    u64 v = 0;
    if (!p) return def;
    while (*p >= '0' && *p <= '9') v = v * 10 + *p++ - '0';
    return v;
}

void finish(u8 code) {
    outb(0xf4, code); /* isa-debug-exit */
    for (;;) asm volatile("hlt");
}
void poweroff(void) {
    outw(0x604, 0x2000); /* PIIX4 PM1a of the pc machine, where SeaBIOS puts it */
    for (;;) asm volatile("hlt");
}

/* fw_cfg by DMA; 1 on success. */
static u32 swap32(u32 v) { return __builtin_bswap32(v); }
int fw_select(u16 key, void *to, u32 len) {
    static volatile struct { u32 control, length; u64 address; } __attribute__((packed, aligned(16))) d;
    d.control = swap32((u32)key << 16 | 8 | 2); /* select, read */
    d.length = swap32(len);
    d.address = __builtin_bswap64((u64)to);
    barrier();
    outl(0x514, 0);
    outl(0x518, swap32((u32)(u64)&d));
    for (int i = 0; i < 100000 && (swap32(d.control) & ~1u); i++) barrier();
    return d.control == 0;
}
int fw_file(const char *name, u32 *size) {
    static struct { u32 size; u16 select, reserved; char name[56]; } dir[64];
    u32 n;
    if (!fw_select(0x19, &n, 4)) return 0;
    n = swap32(n);
    if (n > 64) n = 64;
    static u8 buf[4 + 64 * 64];
    if (!fw_select(0x19, buf, 4 + n * 64)) return 0;
    for (u32 i = 0; i < n * 16; i++) ((u32 *)dir)[i] = *(u32 *)(buf + 4 + i * 4);
    for (u32 i = 0; i < n; i++)
        if (streq(dir[i].name, name)) {
            *size = swap32(dir[i].size);
            return __builtin_bswap16(dir[i].select);
        }
    return 0;
}

u32 pci_read(u32 bdf, u32 reg) {
    outl(0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
    return inl(0xcfc);
}
void pci_write(u32 bdf, u32 reg, u32 v) {
    outl(0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
    outl(0xcfc, v);
}

/* Exceptions and interrupts */
struct frame { u64 r[15], vector, error, rip, cs, rflags, rsp, ss; };
extern u8 isr_stubs[];
extern u64 tss_descriptor[2];
extern u8 stack_top[];
static struct { u16 lo, sel; u8 ist, type; u16 mid; u32 hi, zero; } __attribute__((packed)) idt[64];
static u8 tss[104 + 8192 + 1] __attribute__((aligned(16))); /* with an I/O bitmap that allows all */

void isr(struct frame *f) {
    irq_count[f->vector & 63]++;
    if (f->vector >= 32) {
        if (f->vector >= 40) {
            outb(0xa0, 0x20);
            if (f->vector == 40) outb(0x70, 0x0c), inb(0x71); /* RTC: acknowledge */
        }
        outb(0x20, 0x20);
        return;
    }
    if (f->vector == 13 && r16(f->rip) == 0x320f) { /* rdmsr of a register that is not there */
        msr_faulted = 1;
        f->rip += 2;
        return;
    }
    puts("exception");
    field("vector", f->vector, 2);
    field("error", f->error, 8);
    field("rip", f->rip, 8);
    nl();
    finish(0x7f);
}
void interrupts_init(void) {
    for (int i = 0; i < 64; i++) {
        u64 a = (u64)isr_stubs + i * 16;
        idt[i].lo = a, idt[i].mid = a >> 16, idt[i].hi = a >> 32;
        idt[i].sel = 0x18, idt[i].type = 0x8e;
    }
    *(u64 *)(tss + 4) = (u64)stack_top;
    *(u16 *)(tss + 102) = 104;
    tss[104 + 8192] = 0xff;
    u64 t = (u64)tss;
    tss_descriptor[0] = (sizeof tss - 1) | (t & 0xffffff) << 16 | 0x89ull << 40 | (t >> 24 & 0xff) << 56;
    tss_descriptor[1] = t >> 32;
    struct { u16 n; u64 a; } __attribute__((packed)) r = {sizeof idt - 1, (u64)idt};
    asm volatile("lidt %0" ::"m"(r));
    asm volatile("ltr %w0" ::"r"(0x30));
    asm volatile("fninit");
}

static void take(const char *s) {
    int i = 0;
    while (s[i] && i < (int)sizeof cmdline - 1) cmdline[i] = s[i], i++;
}
void kmain(void) {
    interrupts_init();
    outb(0x3f9, 0), outb(0x3fb, 0x80), outb(0x3f8, 1), outb(0x3f9, 0), outb(0x3fb, 3), outb(0x3fa, 0);
    u64 b = boot_info;
    u32 size = 0;
    int key;
    switch (boot_kind) {
    case KIND_PVH: if (*(u64 *)(b + 24)) take((char *)*(u64 *)(b + 24)); break;
    case KIND_MULTIBOOT: if (r32(b) & 4) take((char *)(u64)r32(b + 16)); break;
    case KIND_LINUX16: case KIND_LINUX32: case KIND_LINUX64: if (r32(b + 0x228)) take((char *)(u64)r32(b + 0x228)); break;
    default:
        key = fw_file("opt/rqc/args", &size);
        if (key) fw_select(key, cmdline, size < sizeof cmdline ? size : sizeof cmdline - 1);
    }
    char prog[16] = "boot";
    args("prog", prog, sizeof prog);
    if (streq(prog, "probe")) probe();
    else if (streq(prog, "smp")) smp();
    else if (streq(prog, "timer")) timer();
    else if (streq(prog, "exits")) exits();
    else if (streq(prog, "assist")) assist();
    else if (streq(prog, "blk")) blk();
    else bootinfo();
    puts("done\r\n");
    if (argn("off", 0)) poweroff();
    finish(0x10);
}

void *memcpy(void *d, const void *s, u64 n) { u8 *a = d; const u8 *b = s; while (n--) *a++ = *b++; return d; }
void *memset(void *d, int c, u64 n) { u8 *a = d; while (n--) *a++ = c; return d; }
/* What the boot protocol handed over. */
static void line(const char *what, const char *s) { puts(what); puts(": "); puts(s); nl(); }
static void range(u64 base, u64 len, u32 type) {
    puts("memory"); field("base", base, 12); field("size", len, 12); fieldd("type", type); nl();
}
static void initrd(u64 at, u64 size) {
    puts("initrd");
    if (argn("where", 1)) field("at", at, 8);
    fieldd("size", size);
    field("fnv", fnv((u8 *)at, size), 8);
    nl();
}
static void rsdp(u64 at) {
    u8 sum = 0;
    puts("rsdp");
    if (!at)
        for (u64 p = 0xe0000; p < 0x100000 && !at; p += 16)
            if (*(volatile u64 *)p == 0x2052545020445352ull) at = p;
    if (!at) { puts(" none\r\n"); return; }
    for (int i = 0; i < 20; i++) sum += r8(at + i);
    fieldd("revision", r8(at + 15)); fieldd("sum", sum);
    if (argn("where", 1)) field("at", at, 8), field("rsdt", r32(at + 16), 8);
    nl();
}
void bootinfo(void) {
    u64 b = boot_info;
    static const char *const kinds[] = {"?", "linux32", "linux64", "pvh", "multiboot", "rom", "linux16"};
    line("entry", kinds[boot_kind]);
    line("arguments", cmdline);
    switch (boot_kind) {
    case KIND_LINUX16: case KIND_LINUX32: case KIND_LINUX64:
        puts("loader"); field("type", r8(b + 0x210), 2); field("flags", r8(b + 0x211), 2); field("sig", r32(b + 0x202), 8); nl();
        for (u32 i = 0; i < r8(b + 0x1e8) && i < 64; i++) {
            u64 e = b + 0x2d0 + i * 20;
            range(*(u64 *)e, *(u64 *)(e + 8), r32(e + 16));
        }
        if (r32(b + 0x21c)) initrd(r32(b + 0x218), r32(b + 0x21c));
        rsdp(*(u64 *)(b + 0x70));
        break;
    case KIND_PVH:
        puts("start_info"); field("magic", r32(b), 8); fieldd("version", r32(b + 4)); fieldd("modules", r32(b + 12)); nl();
        if (r32(b + 12)) { u64 m = *(u64 *)(b + 16); initrd(*(u64 *)m, *(u64 *)(m + 8)); }
        if (r32(b + 4) >= 1)
            for (u32 i = 0; i < r32(b + 48); i++) {
                u64 e = *(u64 *)(b + 40) + i * 24;
                range(*(u64 *)e, *(u64 *)(e + 8), r32(e + 16));
            }
        rsdp(*(u64 *)(b + 32));
        break;
    case KIND_MULTIBOOT:
        puts("multiboot"); field("flags", r32(b), 8); fieldd("lower", r32(b + 4)); fieldd("upper", r32(b + 8));
        fieldd("modules", r32(b + 20)); nl();
        if (r32(b) & 64)
            for (u64 e = r32(b + 48), end = e + r32(b + 44); e < end; e += r32(e) + 4)
                range(*(u64 *)(e + 4), *(u64 *)(e + 12), r32(e + 20));
        if (r32(b) & 8 && r32(b + 20)) {
            u64 m = r32(b + 24);
            initrd(r32(m), r32(m + 4) - r32(m));
            if (r32(m + 8)) line("module", (char *)(u64)r32(m + 8));
        }
        rsdp(0);
        break;
    default:
        rsdp(0);
    }
}
