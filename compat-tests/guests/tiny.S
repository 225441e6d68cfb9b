# 64 KiB firmware image whose first instructions leave by isa-debug-exit at 0xf4: measures the way to the first
# instruction. With HALT it stops the processor for ever instead.
    .section .rom, "ax"
    .code16
    .org 0xfff0
#ifdef HALT
1:  cli
    hlt
    jmp 1b
#else
    movb $0x10, %al
    outb %al, $0xf4
1:  hlt
    jmp 1b
#endif
    .org 0x10000
    .section .note.GNU-stack, "", @progbits
