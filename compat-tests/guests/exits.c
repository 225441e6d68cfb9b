/* Exit round trips: op=none|out|in|mmior|mmiow, count=N, ring=0|3. */
#include "lib.h"

static u64 count;
static int op, user;

static void run(void) {
    u64 t0 = rdtsc(), t1 = t0, best = ~0ull;
    for (u64 left = count; left; ) { /* the best stretch: what the host's other work did not disturb */
        u64 n = left < 64 ? left : 64, before = rdtsc();
        switch (op) {
        case 1: for (u64 i = 0; i < n; i++) outb(0x3ff, i); break; /* UART scratch register */
        case 2: for (u64 i = 0; i < n; i++) inb(0x3ff); break;
        case 3: for (u64 i = 0; i < n; i++) r32(0xfed00004); break; /* HPET period */
        case 4: for (u64 i = 0; i < n; i++) w32(0xfed00014, 0); break; /* HPET, upper half of the configuration */
        }
        t1 = rdtsc(), left -= n;
        u64 cost = (t1 - before) * 1024 / n;
        if (cost < best) best = cost;
    }
    puts("exits"); fieldd("op", op); fieldd("count", count); fieldd("tsc", t1 - t0); fieldd("best1024", best); nl();
    if (user) puts("done\r\n"), finish(0x10);
}
void exits(void) {
    static const char *const names[] = {"none", "out", "in", "mmior", "mmiow"};
    char name[8] = "out";
    args("op", name, sizeof name);
    for (int i = 0; i < 5; i++) if (streq(name, names[i])) op = i;
    count = argn("count", 10000);
    user = argn("ring", 0) == 3;
    if (user) enter_user(run);
    run();
}
