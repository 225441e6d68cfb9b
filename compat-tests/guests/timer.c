/* Clocks against each other: PIT interrupts are the measure, the others are counted meanwhile. */
#include "lib.h"

static void pic_init(void) {
    outb(0x20, 0x11), outb(0xa0, 0x11), outb(0x21, 0x20), outb(0xa1, 0x28), outb(0x21, 4), outb(0xa1, 2), outb(0x21, 1), outb(0xa1, 1);
    outb(0x21, 0xfa); /* IRQ 0 and the cascade */
    outb(0xa1, 0xfe); /* IRQ 8 */
}
/* value within percent of want: "ok", else the number */
static void report(const char *name, u64 value, u64 want, u64 percent) {
    puts("timer "); puts(name);
    u64 d = value > want ? value - want : want - value;
    if (d * 100 <= want * percent) puts(" ok");
    else fieldd("value", value), fieldd("want", want);
    nl();
}
static u8 cmos(u8 reg) { outb(0x70, reg); return inb(0x71); }
void timer(void) {
    u64 ticks = argn("ticks", 200), percent = argn("percent", 15);
    pic_init();
    outb(0x43, 0x34), outb(0x40, 1193182 / 500 & 0xff), outb(0x40, 1193182 / 500 >> 8); /* 500 Hz */
    outb(0x70, 0x0a), outb(0x71, 0x26); /* RTC: 1024 Hz */
    outb(0x70, 0x0b), outb(0x71, 0x42);
    cmos(0x0c);
    int hpet = argn("hpet", 1), pm = argn("pm", 1);
    if (hpet) w32(0xfed00010, 1);
    if (pm) { pci_write(0x0b, 0x40, 0x601); pci_write(0x0b, 0x80, 1); } /* PIIX4 PM at 0x600 */
    w32(0xfee000f0, 0x1ff);
    w32(0xfee003e0, 0xb);
    w32(0xfee00350, 0x700); /* LINT0: interrupts of the PIC */
    w32(0xfee00320, 0x10000);
    asm volatile("sti");
    while (irq_count[32] < 2) asm volatile("hlt");
    u64 p0 = irq_count[32], r0 = irq_count[40];
    u32 h0 = hpet ? r32(0xfed000f0) : 0, m0 = pm ? inl(0x608) : 0;
    w32(0xfee00380, 0xffffffff);
    u64 t0 = rdtsc();
    while (irq_count[32] < p0 + ticks) asm volatile("hlt");
    u64 t1 = rdtsc();
    u32 left = r32(0xfee00390), h1 = hpet ? r32(0xfed000f0) : 0, m1 = pm ? inl(0x608) : 0;
    u64 rtc = irq_count[40] - r0;
    asm volatile("cli");
    u64 us = ticks * 2000;
    report("rtc", rtc, us * 1024 / 1000000, percent);
    if (hpet) report("hpet", h1 - h0, us * 100, percent);
    if (pm) report("pmtimer", (m1 - m0) & 0xffffff, us * 3579545 / 1000000 & 0xffffff, percent);
    report("lapic", 0xffffffffu - left, us * 1000, percent); /* KVM and QEMU: 1 GHz */
    puts("timer tsc "), puts(t1 - t0 > us * 500 ? "runs" : "stands"), nl();
}
