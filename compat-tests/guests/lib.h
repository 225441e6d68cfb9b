/* Freestanding helpers of the test guest. 64-bit, general registers only: the KVM of some test machines emulates ring 0. */
#ifndef LIB_H
#define LIB_H
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

static inline void outb(u16 p, u8 v) { asm volatile("outb %0,%1" ::"a"(v), "Nd"(p)); }
static inline void outw(u16 p, u16 v) { asm volatile("outw %0,%1" ::"a"(v), "Nd"(p)); }
static inline void outl(u16 p, u32 v) { asm volatile("outl %0,%1" ::"a"(v), "Nd"(p)); }
static inline u8 inb(u16 p) { u8 v; asm volatile("inb %1,%0" : "=a"(v) : "Nd"(p)); return v; }
static inline u16 inw(u16 p) { u16 v; asm volatile("inw %1,%0" : "=a"(v) : "Nd"(p)); return v; }
static inline u32 inl(u16 p) { u32 v; asm volatile("inl %1,%0" : "=a"(v) : "Nd"(p)); return v; }
static inline u64 rdtsc(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return (u64)d << 32 | a; }
static inline u32 r32(u64 a) { return *(volatile u32 *)a; }
static inline void w32(u64 a, u32 v) { *(volatile u32 *)a = v; }
static inline void w16(u64 a, u16 v) { *(volatile u16 *)a = v; }
static inline void w8(u64 a, u8 v) { *(volatile u8 *)a = v; }
static inline u16 r16(u64 a) { return *(volatile u16 *)a; }
static inline u8 r8(u64 a) { return *(volatile u8 *)a; }
static inline void barrier(void) { asm volatile("" ::: "memory"); }
static inline void fence(void) { asm volatile("lock; addl $0,-4(%%rsp)" ::: "memory"); }

enum { KIND_LINUX32 = 1, KIND_LINUX64, KIND_PVH, KIND_MULTIBOOT, KIND_ROM, KIND_LINUX16 };
extern u64 boot_kind, boot_info;
extern u64 irq_count[64];
extern int msr_faulted;

void put(char c);
void puts(const char *s);
void dec(u64 v);
void hex(u64 v, int digits);
/* "name=0x..." with a leading blank */
void field(const char *name, u64 v, int digits);
void fieldd(const char *name, u64 v);
void nl(void);
int streq(const char *a, const char *b);
/* Value of key=... in the arguments; def when absent. */
u64 argn(const char *key, u64 def);
int args(const char *key, char *out, int size);
u32 fnv(const u8 *p, u64 n);
void finish(u8 code) __attribute__((noreturn));
void poweroff(void) __attribute__((noreturn));
void enter_user(void (*fn)(void)) __attribute__((noreturn));
int fw_select(u16 key, void *to, u32 len);
int fw_file(const char *name, u32 *size);
u32 pci_read(u32 bdf, u32 reg);
void pci_write(u32 bdf, u32 reg, u32 v);
void interrupts_init(void);

void probe(void);
void smp(void);
void timer(void);
void exits(void);
void assist(void);
void blk(void);
void bootinfo(void);
#endif
