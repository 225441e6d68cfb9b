/* The init of the benchmark guest: runs one measured loop for each line "NAME COUNT" that it reads from the serial
 * console, then answers "done NAME NANOSECONDS CHECKSUM". "off" powers off. Built static, without SSE beyond SSE2. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t (*kernel)(uint64_t n);
typedef uint32_t u32;
typedef uint64_t u64;

#define NOINLINE __attribute__((noinline))

static u64 alu(u64 n)
{
    u64 a = 1, b = 2, c = 3, d = 4;
    while (n--) {
        a += b ^ c;
        b = (b << 7) | (b >> 57);
        c -= a & d;
        d ^= a >> 3;
        a |= c & 0xff;
        b += d;
        __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
    }
    return a + b + c + d;
}

static u64 words[4096];

static u64 ldst(u64 n)
{
    volatile u64 *w = words;
    u64 sum = 0;
    while (n--) {
        u64 i = n * 5 & 4095;
        w[i] += n;
        sum += w[(i + 17) & 4095];
    }
    return sum;
}

static u64 sha256(u64 n)
{
    static const u32 k[8] = { 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5 };
    u32 h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, w[64];
#define ROR(x, s) ((x) >> (s) | (x) << (32 - (s)))
    while (n--) {
        for (int i = 0; i < 16; i++)
            w[i] = h[i & 7] + i * 0x01010101u;
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + (ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7]
                   + (ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10);
        u32 a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], x = h[7];
        for (int i = 0; i < 64; i++) {
            u32 t1 = x + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & f) ^ (~e & g)) + k[i & 7] + w[i];
            u32 t2 = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            x = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += x;
    }
    return h[0] ^ (u64)h[7] << 32;
}

static NOINLINE int compare(const void *a, const void *b)
{
    u32 x = *(const u32 *)a, y = *(const u32 *)b;
    return x < y ? -1 : x > y;
}

static u64 sort(u64 n)
{
    static u32 v[1000];
    u32 seed = 1;
    while (n--) {
        for (int i = 0; i < 1000; i++)
            v[i] = seed = seed * 1664525 + 1013904223;
        qsort(v, 1000, 4, compare);
    }
    return v[500];
}

static NOINLINE u64 fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static u64 calls(u64 n)
{
    u64 s = 0;
    while (n--)
        s += fib(15);
    return s;
}

static NOINLINE u64 f0(u64 x) { return x + 1; }
static NOINLINE u64 f1(u64 x) { return x ^ 5; }
static NOINLINE u64 f2(u64 x) { return x * 3; }
static NOINLINE u64 f3(u64 x) { return x - 7; }
static u64 (*volatile table[4])(u64) = { f0, f1, f2, f3 };

static u64 indirect(u64 n)
{
    u64 s = 0;
    while (n--)
        s = table[(s ^ n) & 3](s);
    return s;
}

static u64 hash(u64 n)
{
    static u32 key[8192];
    u32 seed = 7, found = 0;
    while (n--) {
        seed = seed * 1664525 + 1013904223;
        u32 k = seed >> 19 | 1, i = (k * 2654435761u) >> 19;
        while (key[i] && key[i] != k)
            i = (i + 1) & 8191;
        found += key[i] == k;
        if (!key[i] && (n & 3) == 0)
            key[i] = k;
    }
    return found;
}

static u64 divide(u64 n)
{
    u64 a = ~0ull, s = 0;
    while (n--) {
        s += a / (n | 3) + a % (n | 5);
        a -= s & 0xffff;
    }
    return s;
}

static u64 matmul(u64 n)
{
    static float a[32][32], b[32][32], c[32][32];
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++)
            a[i][j] = i + j * 0.5f, b[i][j] = i - j * 0.25f;
    while (n--) {
        for (int i = 0; i < 32; i++)
            for (int k = 0; k < 32; k++) {
                float x = a[i][k];
                for (int j = 0; j < 32; j++)
                    c[i][j] += x * b[k][j];
            }
        __asm__ volatile("" ::: "memory");
    }
    return (u64)(int64_t)c[3][5];
}

static u64 scalar(u64 n)
{
    double x = 0.5, y = 1.5;
    while (n--) {
        x = x * 1.0000001 + y / 3.0;
        y = y - x * 0.001;
        if (x > 1000)
            x -= 999.5;
    }
    return (u64)(x * 1000);
}

static u64 x87(u64 n)
{
    long double x = 0.5L, y = 1.5L;
    while (n--) {
        x = x * 1.0000001L + y / 3.0L;
        y = y - x * 0.001L;
        if (x > 1000)
            x -= 999.5L;
    }
    return (u64)(x * 1000);
}

static u64 repmovs(u64 n)
{
    static char a[65536], b[65536];
    while (n--) {
        void *d = b, *s = a;
        u64 c = sizeof a;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(c)::"memory");
    }
    return 0;
}

static u64 calls_kernel(u64 n)
{
    u64 s = 0;
    while (n--)
        s += syscall(SYS_getppid);
    return s;
}

static u64 fault(u64 n)
{
    const size_t pages = 256;
    while (n--) {
        char *p = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; i < pages; i++)
            p[i * 4096] = 1;
        munmap(p, pages * 4096);
    }
    return 0;
}

static u64 pingpong(u64 n)
{
    int a[2], b[2];
    char c = 0;
    if (pipe(a) || pipe(b))
        return 1;
    pid_t child = fork();
    if (child == 0) {
        while (n--)
            if (read(a[0], &c, 1) != 1 || write(b[1], &c, 1) != 1)
                break;
        _exit(0);
    }
    while (n--)
        if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
            break;
    waitpid(child, 0, 0);
    close(a[0]), close(a[1]), close(b[0]), close(b[1]);
    return 0;
}

static u64 forks(u64 n)
{
    while (n--) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, 0, 0);
    }
    return 0;
}

static u64 portin(u64 n)
{
    u64 s = 0;
    while (n--)
        s += inb(0x61);
    return s & 0xf;
}

static u64 portout(u64 n)
{
    while (n--)
        outb(0, 0x80);
    return 0;
}

static u64 patch(u64 n)
{
    static unsigned char *code;
    u64 s = 0;
    if (!code) {
        code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(code, "\xb8\0\0\0\0\xc3", 6);
    }
    while (n--) {
        code[1] = (unsigned char)n;
        s += ((u32(*)(void))code)();
    }
    return s;
}

static const struct { const char *name; kernel run; } kernels[] = {
    { "alu", alu }, { "ldst", ldst }, { "sha256", sha256 }, { "sort", sort }, { "calls", calls },
    { "indirect", indirect }, { "hash", hash }, { "divide", divide }, { "matmul", matmul }, { "scalar", scalar },
    { "x87", x87 }, { "repmovs", repmovs }, { "syscall", calls_kernel }, { "fault", fault }, { "pingpong", pingpong },
    { "fork", forks }, { "portin", portin }, { "portout", portout }, { "patch", patch },
};

int main(void)
{
    char line[128];
    mkdir("/dev", 0755);
    mount("dev", "/dev", "devtmpfs", 0, "");
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    struct termios t;
    tcgetattr(fd, &t);
    cfmakeraw(&t);
    t.c_lflag |= ICANON;
    t.c_iflag |= ICRNL;
    tcsetattr(fd, TCSANOW, &t);
    if (getenv("rqc_off"))
        reboot(RB_POWER_OFF);
    ioperm(0x61, 1, 1);
    ioperm(0x80, 1, 1);
    dprintf(fd, "ready\n");
    for (;;) {
        char name[32];
        unsigned long long n;
        int got = read(fd, line, sizeof line - 1);
        if (got <= 0)
            break;
        line[got] = 0;
        if (!strncmp(line, "off", 3))
            break;
        if (sscanf(line, "%31s %llu", name, &n) != 2)
            continue;
        for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
            if (strcmp(kernels[i].name, name))
                continue;
            struct timespec a, b;
            clock_gettime(CLOCK_MONOTONIC, &a);
            u64 sum = kernels[i].run(n);
            clock_gettime(CLOCK_MONOTONIC, &b);
            long long ns = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
            dprintf(fd, "done %s %lld %llx\n", name, ns, (unsigned long long)sum);
        }
    }
    reboot(RB_POWER_OFF);
    return 0;
}
