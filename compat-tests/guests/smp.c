/* Starts the other processors by INIT and SIPI; each counts and reports. */
#include "lib.h"

#define LAPIC 0xfee00000u
extern u8 ap_start[], ap_end[];
static volatile u32 arrived, counter, printing, go;

static void count(void) {
    for (int i = 0; i < 1000; i++) asm volatile("lock; incl %0" : "+m"(counter));
}
static u32 apic_id(void) { return r32(LAPIC + 0x20) >> 24; }
static void say(u32 id) {
    while (__sync_lock_test_and_set(&printing, 1)) asm volatile("pause");
    puts("cpu"); fieldd("apic", id); nl();
    __sync_lock_release(&printing);
}
void ap_main(void) {
    u32 id = apic_id();
    count();
    __sync_fetch_and_add(&arrived, 1);
    /* in turn, so that the text is the same each time */
    while (go != id) asm volatile("pause");
    say(id);
    __sync_fetch_and_add(&arrived, 1);
    for (;;) asm volatile("cli; hlt");
}
void smp(void) {
    u32 n = argn("cpus", 4);
    u8 *to = (u8 *)0x8000;
    for (u32 i = 0; i < (u32)(ap_end - ap_start); i++) to[i] = ap_start[i];
    w32(LAPIC + 0xf0, r32(LAPIC + 0xf0) | 0x100);
    w32(LAPIC + 0x300, 0xc4500); /* INIT to all but self */
    u64 end = rdtsc() + 30000000;
    while (rdtsc() < end) asm volatile("pause");
    w32(LAPIC + 0x300, 0xc4608); /* SIPI, vector 8 */
    count();
    end = rdtsc() + 20000000000ull;
    while (arrived < n - 1 && rdtsc() < end) asm volatile("pause");
    if (arrived < n - 1) { puts("only"); fieldd("arrived", arrived); nl(); return; }
    say(apic_id());
    for (u32 id = 1; id < n; id++) {
        u32 before = arrived;
        go = id;
        while (arrived == before && rdtsc() < end) asm volatile("pause");
    }
    puts("smp"); fieldd("cpus", n); fieldd("count", counter); nl();
}
