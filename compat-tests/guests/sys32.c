/* What the processor does at the corners of protected mode: segments, gates, tasks, paging, debug registers,
 * virtual-8086 mode. Prints what it sees; the text is compared with that of another emulator. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

#define NAKED __attribute__((naked, used))
#define CODE(name, text) NAKED static void name(void) { __asm__ volatile(text); }

extern struct {
    u32 vector, error, eip, cs, eflags, esp, ss, cr2, dr6, edi, esi, ebp, esp0, ebx, edx, ecx, eax;
} exc;
extern u8 stubs[];
u32 try0(void (*f)(void), u32 edx);
u32 try3(void (*f)(void), u32 edx, u32 eflags);
u32 try86(u32 cs, u32 ip, u32 eflags);

static u64 gdt[32], idt[256];
static u32 tss[64], tss2[26], tss3[26];
static u32 pd[1024] __attribute__((aligned(4096))), pt[1024] __attribute__((aligned(4096)));
static u64 pdpt[4] __attribute__((aligned(4096))), pae_pd[4][512] __attribute__((aligned(4096))),
    pae_pt[512] __attribute__((aligned(4096)));
static u8 area[4096] __attribute__((aligned(4096)));

static void outb(u16 port, u8 v) { __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port)); }
static void put(const char *s) { for (; *s; s++) outb(0x3f8, *s); }
static void hex(u32 v)
{
    int i = 28;
    while (i && !(v >> i)) i -= 4;
    for (; i >= 0; i -= 4) outb(0x3f8, "0123456789abcdef"[v >> i & 15]);
}
static void val(const char *n, u32 v) { put(" "); put(n); put("="); hex(v); }

/* Tells what happened. */
static void tell(const char *name, u32 v)
{
    put(name);
    if (v == ~0u) { put(": none\n"); return; }
    /* QEMU does not set P for reserved bits. */
    put(":"); val("v", v); val("e", exc.error & 8 ? exc.error & ~1u : exc.error); val("ip", exc.eip); val("cs", exc.cs & 0xffff);
    /* QEMU does not set RF. */
    val("fl", exc.eflags & 0x3e7700);
    if (exc.eflags & 0x20000 || exc.cs & 3) { val("sp", exc.esp); val("ss", exc.ss & 0xffff); }
    if (v == 14) val("cr2", exc.cr2);
    if (v == 1) { val("dr6", exc.dr6); __asm__ volatile("mov %0, %%dr6" ::"r"(0)); }
    put("\n");
}

static u64 descriptor(u32 base, u32 limit, u32 attr)
{
    u32 lo = base << 16 | (limit & 0xffff);
    u32 hi = (base & 0xff000000) | (limit & 0xf0000) | (base >> 16 & 0xff) | attr << 8;
    return (u64)hi << 32 | lo;
}
static u64 gate(u32 sel, u32 off, u32 attr, u32 count)
{
    return (u64)((off & 0xffff0000) | attr << 8 | count) << 32 | sel << 16 | (off & 0xffff);
}
static void load_tables(void)
{
    struct { u16 limit; u32 base; } __attribute__((packed)) g = { sizeof gdt - 1, (u32)gdt }, i = { sizeof idt - 1, (u32)idt };
    gdt[1] = descriptor(0, 0xfffff, 0xc09b);
    gdt[2] = descriptor(0, 0xfffff, 0xc093);
    gdt[3] = descriptor(0, 0xfffff, 0xc0fb);
    gdt[4] = descriptor(0, 0xfffff, 0xc0f3);
    gdt[5] = descriptor((u32)tss, sizeof tss - 1, 0x89);
    gdt[6] = descriptor((u32)tss2, sizeof tss2 - 1, 0x89);
    gdt[7] = descriptor((u32)tss3, sizeof tss3 - 1, 0x89);
    for (u32 v = 0; v < 256; v++) idt[v] = gate(8, (u32)stubs + 16 * v, v >= 0x80 || v == 3 || v == 4 ? 0xee : 0x8e, 0);
    tss[1] = 0x70000, tss[2] = 0x10;
    ((u16 *)tss)[51] = 104;
    __asm__ volatile("lgdt %0; lidt %1; ltr %w2" ::"m"(g), "m"(i), "r"(0x28));
}

/* ---- segments ---- */
CODE(load_es, "movw %dx, %es; ret")
CODE(load_ss, "movw %dx, %ss; movw $0x10, %ax; movw %ax, %ss; ret")
CODE(jump_seg, "pushl $0; movw $0x40, 2(%esp); ljmp $0x40, $0xf0000; nop")

static void segments(void)
{
    static const u32 attrs[] = { 0x4091, 0x4093, 0x4097, 0x0097, 0x4099, 0x409b, 0x409f, 0x4013, 0x40f3, 0x40b3, 0x40fb, 0xc093,
                                 0x82, 0x85, 0x89, 0x8b, 0x8c, 0x8e, 0x80 };
    for (u32 i = 0; i < sizeof attrs / 4; i++) {
        gdt[8] = descriptor((u32)area, 0x7f, attrs[i]);
        put("segment"); val("attr", attrs[i]);
        for (u32 rpl = 0; rpl < 4; rpl += 3) {
            exc.error = 0;
            val("es", try0(load_es, 0x40 | rpl)); val("e", exc.error);
            exc.error = 0;
            val("ss", try0(load_ss, 0x40 | rpl)); val("e", exc.error);
        }
        u32 lar, lsl, ok, ok2;
        u8 zr, zw;
        __asm__ volatile("xorl %0, %0; lar %4, %0; setz %b2; lsl %4, %1; setz %b3" : "=&r"(lar), "=&r"(lsl), "=&q"(ok), "=&q"(ok2) : "r"(0x40) : "cc");
        val("lar", ok & 0xff ? lar : 1);
        val("lsl", ok2 & 0xff ? lsl : 1);
        __asm__ volatile("verr %w2; setz %0; verw %w2; setz %1" : "=&q"(zr), "=&q"(zw) : "r"(0x40) : "cc");
        val("verr", zr); val("verw", zw);
        val("A", (u32)(gdt[8] >> 40) & 1);
        put("\n");
        __asm__ volatile("movw %w0, %%es" ::"r"(0x10));
    }
    gdt[8] = 0;
    tell("jump to a null descriptor", try0(jump_seg, 0));
    gdt[8] = descriptor(0, 0xeffff, 0x409b);
    tell("jump beyond the limit", try0(jump_seg, 0));
    gdt[8] = descriptor(0, 0xfffff, 0xc01b);
    tell("jump to an absent segment", try0(jump_seg, 0));
    tell("selector beyond the table", try0(load_es, 0x200));
    tell("selector in a null LDT", try0(load_es, 0xc));
}

/* ---- gates ---- */
CODE(soft80, "int $0x80")
static u32 seen[8];
NAKED static void gate_target(void)
{
    __asm__ volatile("movl %%esp, %0; movl 8(%%esp), %%eax; movl %%eax, %1; movl 12(%%esp), %%eax; movl %%eax, %2;"
                     "movl %%cs, %%eax; movl %%eax, %3; movl %%ss, %%eax; movl %%eax, %4; movl 4(%%esp), %%eax; movl %%eax, %5; lret $8"
                     : "=m"(seen[0]), "=m"(seen[1]), "=m"(seen[2]), "=m"(seen[3]), "=m"(seen[4]), "=m"(seen[5]));
}
CODE(gate_user, "pushl $0x11; pushl $0x22; lcall $0x4b, $0; int $0x80")
CODE(gate_user0, "pushl $0x11; pushl $0x22; lcall $0x48, $0; int $0x80")
CODE(jump_gate, "ljmp $0x4b, $0; int $0x80")
CODE(soft81, "int $0x81")
CODE(soft_div, "int $0")
CODE(do_int3, "int3; int $0x80")
CODE(do_into, "movb $0x7f, %al; incb %al; into; int $0x80")
CODE(do_bound, "movl $0x20000, %ebx; movl $5, (%ebx); movl $6, 4(%ebx); movl $7, %eax; bound %eax, (%ebx); ret")
CODE(do_ud, "ud2")
CODE(privileged, "hlt")
CODE(cli_user, "cli; int $0x80")
CODE(in_user, "inb $0x61, %al; int $0x80")
CODE(popf_user, "pushl $0x3202; popfl; pushfl; popl %eax; int $0x80")
CODE(sgdt_user, "subl $8, %esp; sgdt (%esp); int $0x80")
CODE(smsw_user, "smsw %eax; int $0x80")
CODE(str_user, "str %eax; int $0x80")
CODE(iret_bad, "pushl $2; pushl $0x44; pushl $0; iret")

static void gates(void)
{
    gdt[9] = gate(8, (u32)gate_target, 0xec, 2);
    tell("call gate from ring 3", try3(gate_user, 0, 2));
    for (int i = 0; i < 6; i++) val("seen", seen[i]);
    put("\n");
    static const u32 attrs[] = { 0x8c, 0x6c, 0xee };
    for (int i = 0; i < 3; i++) {
        gdt[9] = gate(8, (u32)gate_target, attrs[i], 2);
        put("gate"); val("attr", attrs[i]); put(" ");
        tell("rpl 3", try3(gate_user, 0, 2));
    }
    gdt[9] = gate(0x1b, (u32)soft80, 0xec, 0);
    tell("gate to the same ring", try3(gate_user, 0, 2));
    tell("jump through it", try3(jump_gate, 0, 2));
    gdt[9] = gate(8, (u32)gate_target, 0xec, 0);
    tell("jump to an inner ring", try3(jump_gate, 0, 2));
    gdt[9] = gate(0x10, (u32)gate_target, 0xec, 0);
    tell("gate to data", try3(gate_user0, 0, 2));
    gdt[10] = descriptor(0, 0xfffff, 0xc09f);
    gdt[9] = gate(0x50, (u32)soft80, 0xec, 0);
    /* QEMU leaves the new CS with the RPL of the gate's selector: only the vector is compared. */
    val("gate to conforming code", try3(gate_user, 0, 2));
    put("\n");
    tell("int 80 from ring 0", try0(soft80, 0));
    tell("int 80 from ring 3", try3(soft80, 0, 2));
    tell("int 0 from ring 3", try3(soft_div, 0, 2));
    tell("int3", try3(do_int3, 0, 2));
    tell("into", try3(do_into, 0, 2));
    tell("bound", try0(do_bound, 0));
    tell("ud2", try3(do_ud, 0, 2));
    tell("hlt", try3(privileged, 0, 2));
    tell("cli, IOPL 0", try3(cli_user, 0, 2));
    tell("cli, IOPL 3", try3(cli_user, 0, 0x3002));
    tell("in, no bitmap", try3(in_user, 0, 2));
    gdt[5] = descriptor((u32)tss, sizeof tss - 1, 0x89);
    tss[26 + 3] = 0xfffffffd;
    __asm__ volatile("ltr %w0" ::"r"(0x28));
    tell("in, bitmap allows", try3(in_user, 0, 2));
    tss[26 + 3] = 0xffffffff;
    tell("in, bitmap forbids", try3(in_user, 0, 2));
    tell("in, IOPL 3", try3(in_user, 0, 0x3002));
    tell("popf", try3(popf_user, 0, 2));
    val("flags", exc.eax & 0x3f7700);
    tell(" popf, IOPL 3", try3(popf_user, 0, 0x3002));
    val("flags", exc.eax & 0x3f7700);
    tell(" iret to a bad selector", try0(iret_bad, 0));
    idt[0x81] = gate(8, (u32)stubs, 0x6e, 0);
    tell("absent interrupt gate", try3(soft81, 0, 2));
    idt[0x81] = gate(0x10, (u32)stubs, 0xee, 0);
    tell("interrupt gate to data", try3(soft81, 0, 2));
    idt[0x81] = gate(8, (u32)stubs + 16 * 0x81, 0xef, 0);
    tell("trap gate", try3(soft81, 0, 0x202));
    idt[6] = 0;
    /* QEMU does not set EXT in the error code. */
    val("a fault whose gate is empty", try0(do_ud, 0));
    put("\n");
    idt[6] = gate(8, (u32)stubs + 16 * 6, 0x8e, 0);
}

/* ---- tasks ---- */
static u32 task_seen[8];
NAKED static void task_code(void)
{
    __asm__ volatile("1: pushfl; popl %%eax; movl %%eax, %0; movl %%cr0, %%eax; movl %%eax, %1; str %%eax; movl %%eax, %2; movl %%ebx, %3; incl %4; iret; jmp 1b"
                     : "=m"(task_seen[0]), "=m"(task_seen[1]), "=m"(task_seen[2]), "=m"(task_seen[3]), "+m"(task_seen[4]));
}
NAKED static void df_task(void) { __asm__ volatile("popl %%eax; movl %%eax, %0; pushfl; popl %%eax; movl %%eax, %1; movl %3, %2; iret" : "=m"(task_seen[5]), "=m"(task_seen[6]), "=m"(tss[8]) : "i"(soft80)); }
CODE(call_task, "lcall $0x30, $0; lcall $0x30, $0; int $0x80")
CODE(call_busy, "lcall $0x28, $0; int $0x80")
CODE(int_task, "int $0x82; int $0x80")
CODE(double_fault, "ud2; nop; int $0x80")

static void set_task(u32 *t, void (*f)(void), u32 esp)
{
    t[7] = 0, t[8] = (u32)f, t[9] = 2, t[13] = 0x1234, t[14] = esp;
    t[18] = 0x10, t[19] = 8, t[20] = 0x10, t[21] = 0x10, t[22] = 0x10, t[23] = 0x10, t[24] = 0, t[25] = 104 << 16;
}
static void show_tasks(void)
{
    for (int i = 0; i < 7; i++) val("t", task_seen[i]);
    val("link2", tss2[0]); val("link3", tss3[0]); val("eip2", tss2[8]); val("fl2", tss2[9] & 0x3f7700);
    val("type1", (u32)(gdt[5] >> 40) & 15); val("type2", (u32)(gdt[6] >> 40) & 15); val("type3", (u32)(gdt[7] >> 40) & 15);
    u32 cr0;
    __asm__ volatile("movl %%cr0, %0; clts" : "=r"(cr0));
    val("cr0", cr0);
    put("\n");
}
static void tasks(void)
{
    set_task(tss2, task_code, 0x68000);
    set_task(tss3, df_task, 0x6c000);
    tell("call to a task, twice", try0(call_task, 0));
    show_tasks();
    tell("call to a busy task", try0(call_busy, 0));
    gdt[6] = descriptor((u32)tss2, 0x50, 0x89);
    tell("short TSS", try0(call_task, 0));
    gdt[6] = descriptor((u32)tss2, sizeof tss2 - 1, 0x09);
    tell("absent TSS", try0(call_task, 0));
    gdt[6] = descriptor((u32)tss2, sizeof tss2 - 1, 0x89);
    set_task(tss2, task_code, 0x68000);
    idt[0x82] = gate(0x30, 0, 0xe5, 0);
    tell("interrupt through a task gate", try3(int_task, 0, 2));
    show_tasks();
    set_task(tss2, task_code, 0x68000);
    tss2[18] = 0x44;
    tell("task with a bad segment", try0(call_task, 0));
    show_tasks();
    gdt[5] = descriptor((u32)tss, sizeof tss - 1, 0x89);
    __asm__ volatile("ltr %w0" ::"r"(0x28));
    idt[8] = gate(0x38, 0, 0x85, 0);
    idt[6] = gate(0x48, 0, 0x8e, 0);
    idt[13] = idt[11] = 0;
    tell("double fault through a task gate", try0(double_fault, 0));
    show_tasks();
    load_tables();
}

/* ---- paging ---- */
#define WINDOW 0x400000u
CODE(pf_read, "movl (%edx), %eax; ret")
CODE(pf_write, "movl $5, (%edx); ret")
CODE(pf_exec, "call *%edx; ret")
CODE(pf_read3, "movl (%edx), %eax; int $0x80")
CODE(pf_write3, "movl $5, (%edx); int $0x80")
CODE(pf_exec3, "call *%edx; int $0x80")
CODE(pf_stac, "stac; movl (%edx), %eax; clac; ret")

static u32 cr0(u32 set, u32 clear)
{
    u32 v;
    __asm__ volatile("movl %%cr0, %0; orl %1, %0; andl %2, %0; movl %0, %%cr0" : "=&r"(v) : "r"(set), "r"(~clear) : "memory");
    return v;
}
static void cr4(u32 set, u32 clear)
{
    u32 v;
    __asm__ volatile("movl %%cr4, %0; orl %1, %0; andl %2, %0; movl %0, %%cr4" : "=&r"(v) : "r"(set), "r"(~clear) : "memory");
}
static void flush(void) { u32 v; __asm__ volatile("movl %%cr3, %0; movl %0, %%cr3" : "=r"(v)::"memory"); }

static void accesses(const char *what, volatile u32 *entry, u32 bits, int modern)
{
    void (*fs[6])(void) = { pf_read, pf_write, pf_exec, pf_read3, pf_write3, pf_exec3 };
    put(what); val("bits", bits);
    for (int i = 0; i < (modern ? 3 : 6); i++) {
        *entry = (u32)area | bits;
        flush();
        area[0] = 0xc3;
        u32 at = i == 1 || i == 4 ? WINDOW + 0x10 : WINDOW;
        u32 v = i < 3 ? try0(fs[i], at) : try3(fs[i], at, 2);
        val("v", v);
        if (v == 14) { val("e", exc.error & 8 ? exc.error & ~1u : exc.error); val("cr2", exc.cr2); }
        val("pte", *entry & 0xfff);
    }
    if (modern == 1) val("stac", try0(pf_stac, WINDOW));
    put("\n");
}

static void paging(int pae, int modern)
{
    for (u32 i = 0; i < 1024; i++) pd[i] = i << 22 | 0x87;
    for (u32 i = 0; i < 2048; i++) pae_pd[i >> 9][i & 511] = (u64)i << 21 | 0x87;
    for (u32 i = 0; i < 4; i++) pdpt[i] = (u32)pae_pd[i] | 1;
    pd[1] = (u32)pt | 7;
    pae_pd[0][2] = (u32)pae_pt | 7;
    cr4(0x10 | (pae ? 0x20 : 0), pae ? 0 : 0x20);
    __asm__ volatile("movl %0, %%cr3" ::"r"(pae ? (u32)pdpt : (u32)pd));
    cr0(0x80000000, 0);
    volatile u32 *e = pae ? (u32 *)pae_pt : pt;
    for (int wp = 0; wp < 2; wp++) {
        cr0(wp ? 0x10000 : 0, wp ? 0 : 0x10000);
        static const u32 bits[] = { 0, 1, 3, 5, 7, 0x61, 0x67, 0x107, 0x187 };
        for (u32 i = 0; i < sizeof bits / 4; i++) accesses(wp ? "page, WP" : "page", e, bits[i], 0);
    }
    if (pae) {
        e[1] = 0x80000000;
        accesses("NX without EFER.NXE", e, 7, 0);
        __asm__ volatile("rdmsr; orl $0x800, %%eax; wrmsr" ::"c"(0xc0000080) : "eax", "edx");
        accesses("NX", e, 7, 0);
        accesses("NX, read-only", e, 5, 0);
        e[1] = 0x00100000;
        accesses("reserved bit", e, 7, 0);
        e[1] = 0;
        u64 saved = pae_pd[0][2];
        pae_pd[0][2] = 0x2087;
        tell("reserved bit of a large page", try0(pf_read, WINDOW));
        pae_pd[0][2] = saved;
    } else {
        u32 saved = pd[2];
        pd[2] = 0x200083;
        flush();
        tell("PSE, reserved bit", try0(pf_read, 0x800000));
        pd[2] = 0x000083;
        flush();
        *(volatile u32 *)0x30000 = 0x1234567;
        val("PSE reads", *(volatile u32 *)0x830000);
        pd[2] = 0x002083;
        flush();
        val("PSE-36 reads", *(volatile u32 *)0x830000);
        val("entry", pd[2]);
        put("\n");
        pd[2] = saved;
        flush();
    }
    if (modern) {
        /* No user page may hold code of ring 0 or its data. */
        pd[0] = 0x83, pae_pd[0][0] = 0x83;
        flush();
        cr4(1 << 20, 0);
        accesses("SMEP", e, 7, 2);
        accesses("SMEP", e, 3, 2);
        cr4(1 << 21, 0);
        accesses("SMEP, SMAP", e, 7, 1);
        accesses("SMEP, SMAP", e, 5, 1);
        accesses("SMEP, SMAP", e, 3, 1);
        cr4(0, 3 << 20);
        pd[0] = 0x87, pae_pd[0][0] = 0x87;
        flush();
    }
    /* A write over a page's end whose second page is absent changes nothing. */
    e[0] = (u32)area | 7;
    if (pae) e[2] = 0, e[3] = 0; else e[1] = 0;
    flush();
    *(u32 *)(area + 0xffc) = 0x55555555;
    tell("write over a page's end", try0(pf_write, WINDOW + 0xffe));
    val("left", *(u32 *)(area + 0xffc));
    put("\n");
    cr0(0, 0x80010000);
    cr4(0, 0x30);
}

/* ---- debug registers ---- */
CODE(db_write, "movl $1, (%edx); nop; ret")
CODE(db_read, "movl (%edx), %eax; nop; ret")
CODE(db_byte3, "movb 3(%edx), %al; nop; ret")
CODE(db_before, "movl $1, -2(%edx); nop; ret")
CODE(db_movs, "movl %edx, %edi; subl $4, %edi; movl $0x30000, %esi; movl $16, %ecx; rep movsb; nop; ret")
CODE(db_push, "movl %esp, %ebx; leal 4(%edx), %esp; pushl %eax; nop; movl %ebx, %esp; ret")
CODE(db_exec, "nop; nop; ret")
CODE(db_ss, "movw %ss, %ax; movl %eax, (%edx); movw (%edx), %ss; nop; nop; ret")
CODE(db_in, "inb $0x61, %al; nop; ret")
CODE(tf_on, "pushfl; orl $0x100, (%esp); popfl; nop; nop; ret")
CODE(tf_ss, "movw %ss, %ax; pushfl; orl $0x100, (%esp); popfl; movw %ax, %ss; nop; nop; ret")
CODE(tf_int, "pushfl; orl $0x100, (%esp); popfl; int $0x80")
CODE(tf_rep, "movl %edx, %edi; movl $4, %ecx; pushfl; orl $0x100, (%esp); popfl; rep stosb; nop; ret")

static void debug(u32 dr0, u32 dr7) { __asm__ volatile("movl %0, %%dr0; movl %1, %%dr7; movl %2, %%dr6" ::"r"(dr0), "r"(dr7), "r"(0)); }
static void debugging(void)
{
    u32 at = (u32)area + 0x100;
    void (*fs[7])(void) = { db_write, db_read, db_byte3, db_before, db_movs, db_push, db_ss };
    static const u32 dr7s[] = { 0x1, 0xd0001, 0xf0001, 0x10002, 0x50001, 0xf0000, 0xb0001 };
    for (u32 i = 0; i < 7; i++)
        for (u32 j = 0; j < 7; j++) {
            debug(at, dr7s[j]);
            u32 v = try0(fs[i], at);
            debug(0, 0);
            put("data breakpoint"); val("code", i); val("dr7", dr7s[j]);
            val("edi", exc.edi); val("ecx", exc.ecx);
            tell("", v);
        }
    debug((u32)db_exec + 1, 1);
    tell("code breakpoint", try0(db_exec, 0));
    debug(0x61, 0x20001);
    tell("I/O breakpoint without DE", try0(db_in, 0));
    cr4(8, 0);
    tell("I/O breakpoint", try0(db_in, 0));
    __asm__ volatile("movl %0, %%dr6" ::"r"(0xffffffff));
    u32 v6, v7;
    __asm__ volatile("movl %%dr6, %0; movl %2, %%dr7; movl %%dr7, %1" : "=&r"(v6), "=&r"(v7) : "r"(0));
    val("dr6", v6 & ~0x1000u); val("dr7", v7); put("\n");
    debug(0, 0);
    cr4(0, 8);
    tell("single step", try0(tf_on, 0));
    tell("single step over mov ss", try0(tf_ss, 0));
    tell("single step into int", try0(tf_int, 0));
    tell("single step of rep", try0(tf_rep, at));
    val("ecx", exc.ecx);
    put("\n");
    debug(0, 0);
}

/* ---- virtual-8086 mode ---- */
static void v86(const char *name, u32 flags, const u8 *code, u32 n)
{
    for (u32 i = 0; i < n; i++) ((volatile u8 *)0x10000)[i] = code[i];
    u32 v = try86(0x1000, 0, flags);
    put("v86 ");
    val("eax", exc.eax);
    put(" ");
    tell(name, v);
}
#define V86(name, flags, ...) do { static const u8 c[] = { __VA_ARGS__ }; v86(name, flags, c, sizeof c); } while (0)
static void virtual86(void)
{
    V86("hlt", 2, 0xb8, 0x55, 0, 0xf4);
    V86("int, IOPL 0", 2, 0xcd, 0x80);
    V86("int, IOPL 3", 0x3002, 0xcd, 0x80);
    V86("int3, IOPL 0", 2, 0xcc);
    V86("cli, IOPL 0", 2, 0xfa, 0xf4);
    V86("cli, IOPL 3", 0x3202, 0xfa, 0x9c, 0x58, 0xf4);
    V86("pushf, IOPL 0", 2, 0x9c, 0xf4);
    V86("popf, IOPL 3", 0x3002, 0x68, 0xd7, 0x7f, 0x9d, 0x9c, 0x58, 0xf4);
    V86("iret, IOPL 0", 2, 0xcf);
    V86("iret, IOPL 3", 0x3002, 0x68, 2, 2, 0x68, 0, 0x10, 0x68, 0x10, 0, 0xcf, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xf4);
    V86("in", 2, 0xe4, 0x61, 0xf4);
    V86("in, IOPL 3", 0x3002, 0xe4, 0x61, 0xf4);
    V86("mov cr0", 2, 0x0f, 0x20, 0xc0);
    V86("sldt", 2, 0x0f, 0, 0xc0);
    V86("segment loads", 2, 0xb8, 0x34, 0x12, 0x8e, 0xc0, 0x8c, 0xc0, 0xf4);
    V86("ud", 2, 0x0f, 0x0b);
    V86("div", 2, 0x31, 0xc9, 0xf7, 0xf1);
    V86("single step", 0x102, 0x90, 0x90, 0xf4);
}

void main(void);
void main(void)
{
    u32 a = 7, b, c = 0, d;
    load_tables();
    put("== segments\n");
    segments();
    put("== gates\n");
    gates();
    put("== tasks\n");
    tasks();
    put("== debug registers\n");
    debugging();
    put("== virtual-8086 mode\n");
    virtual86();
    put("== paging\n");
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    int modern = (b >> 7 & 1) && (b >> 20 & 1);
    paging(0, modern);
    put("== paging with PAE\n");
    paging(1, modern);
    put("== UMIP\n");
    tell("sgdt in ring 3", try3(sgdt_user, 0, 2));
    tell("smsw in ring 3", try3(smsw_user, 0, 2));
    if (c >> 2 & 1) {
        cr4(1 << 11, 0);
        tell("sgdt, UMIP", try3(sgdt_user, 0, 2));
        tell("smsw, UMIP", try3(smsw_user, 0, 2));
        tell("str, UMIP", try3(str_user, 0, 2));
    }
    put("end\n");
    outb(0xf4, 0x10);
}
