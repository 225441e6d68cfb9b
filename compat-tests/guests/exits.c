/* Exit round trips: op=none|out|in|mmior|mmiow, count=N, ring=0|3. */
#include "lib.h"

static u64 count;
static int op, user;

static void run(void) {
    u64 t0 = rdtsc();
    switch (op) {
    case 1: for (u64 i = 0; i < count; i++) outb(0x3ff, i); break; /* UART scratch register */
    case 2: for (u64 i = 0; i < count; i++) inb(0x3ff); break;
    case 3: for (u64 i = 0; i < count; i++) r32(0xfed00004); break; /* HPET period */
    case 4: for (u64 i = 0; i < count; i++) w32(0xfed00014, 0); break; /* HPET, upper half of the configuration */
    }
    u64 t1 = rdtsc();
    puts("exits"); fieldd("op", op); fieldd("count", count); fieldd("tsc", t1 - t0); nl();
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
