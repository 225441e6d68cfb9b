/* Instructions that a KVM which emulates kernel code may lack: results of each, count=N rounds of all. */
#include "lib.h"

static u64 x87(void) {
    u64 v;
    asm volatile("fninit; fld1; fldpi; faddp; fstpl %0; fwait" : "=m"(v));
    return v;
}
static u64 control_word(void) {
    u16 v = 0x27f, w;
    asm volatile("fldcw %1; fnstcw %0" : "=m"(w) : "m"(v));
    return w;
}
static u64 popcount(u64 v) {
    u64 r;
    asm volatile("popcnt %1,%0" : "=r"(r) : "rm"(v) : "cc");
    return r;
}
static u64 exchange16(void) {
    static volatile u64 cell[2] __attribute__((aligned(16))) = {1, 2};
    u64 a = cell[0], d = cell[1];
    u8 done;
    asm volatile("lock cmpxchg16b %1; sete %0" : "=r"(done), "+m"(cell), "+a"(a), "+d"(d) : "b"(a + 3), "c"(d + 5) : "cc");
    return cell[0] << 32 | cell[1] << 8 | done;
}
static u64 sse(void) {
    static const float a[4] __attribute__((aligned(16))) = {1, 2, 3, 4};
    float r[4] __attribute__((aligned(16)));
    asm volatile("movaps %1,%%xmm3; addps %%xmm3,%%xmm3; mulps %1,%%xmm3; pxor %%xmm4,%%xmm4; movaps %%xmm3,%0" : "=m"(r) : "m"(a));
    return (u64)((u32 *)r)[3] << 32 | ((u32 *)r)[1];
}
static u64 segment(void) {
    u16 cs;
    u32 rights, limit;
    asm volatile("mov %%cs,%0" : "=r"(cs));
    asm volatile("lar %1,%0" : "=r"(rights) : "r"((u32)cs) : "cc");
    asm volatile("lsl %1,%0" : "=r"(limit) : "r"((u32)cs) : "cc");
    return (u64)limit << 32 | (rights & 0x60fb00);
}
static u64 later(void) {
    u32 a, d, c;
    u64 before = rdtsc();
    asm volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(c));
    u64 after = rdtsc();
    u64 at = (u64)d << 32 | a;
    return before <= at && at <= after;
}

void assist(void) {
    u64 cr4, ok = 1;
    asm volatile("mov %%cr4,%0" : "=r"(cr4));
    asm volatile("mov %0,%%cr4" ::"r"(cr4 | 0x600));
    u64 count = argn("count", 1);
    for (u64 i = 0; i < count; i++) ok &= later();
    u64 sum = 0;
    for (u64 i = 0; i < count; i++) sum += popcount(i * 0x9e3779b97f4a7c15) + x87();
    puts("assist"); field("x87", x87(), 16); field("cw", control_word(), 4); field("popcnt", popcount(0xf0f0ff), 2);
    field("cx16", exchange16(), 12); field("sse", sse(), 16); field("seg", segment(), 16); field("tsc", ok, 1);
    field("sum", sum, 16);
    nl();
}
