/* Firmware that enters main() in flat 32-bit protected mode with a gate for each vector, and ways to run code that
 * faults: in ring 0, in ring 3, in virtual-8086 mode. Whatever happens is noted in `exc`. */
        .code16
        .section .reset, "ax"
        .globl  reset
reset:  .byte 0xea
        .word start16_off, 0xf000
        .balign 16

        .text
        .globl start16, boot_gdtr
start16:
        cli
        lgdtl   %cs:gdtr_off
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $start32
        .balign 8
boot_gdt:
        .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
boot_gdtr:
        .word   23
        .long   boot_gdt

        .code32
start32:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    %ax, %fs
        movw    %ax, %gs
        movl    $0x80000, %esp
        movl    $bss_start, %edi
        movl    $bss_end, %ecx
        subl    %edi, %ecx
        xorl    %eax, %eax
        cld
        rep stosb
        call    main
1:      hlt
        jmp     1b

        .globl  stubs
        .balign 16
stubs:
        .set    v, 0
        .rept   256
        .balign 16
        .if     !(v == 8 || (v >= 10 && v <= 14) || v == 17)
        push    $0
        .endif
        pushl   $v
        jmp     common
        .set    v, v + 1
        .endr

common: /* vector, error, eip, cs, eflags, (esp, ss) */
        cld
        pushal
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movl    $exc, %edi
        leal    32(%esp), %esi
        movl    $7, %ecx
        rep movsl
        movl    %cr2, %eax
        stosl
        movl    %dr6, %eax
        stosl
        movl    %esp, %esi
        movl    $8, %ecx
        rep movsl
        movl    exc, %eax
recover:
        movl    recover_esp, %esp
        popl    %edi
        popl    %esi
        popl    %ebx
        popl    %ebp
        pushl   $2
        popfl
        ret

        .macro  enter
        pushl   %ebp
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        movl    20(%esp), %eax
        movl    24(%esp), %edx
        movl    28(%esp), %ecx
        movl    %esp, recover_esp
        .endm

/* u32 try0(f, edx): in ring 0; the vector, or -1. */
        .globl  try0
try0:   enter
        call    *%eax
        movl    $-1, %eax
        jmp     recover

/* u32 try3(f, edx, eflags) */
        .globl  try3
try3:   enter
        pushl   $0x23
        pushl   $0x60000
        pushl   %ecx
        pushl   $0x1b
        pushl   %eax
        movw    $0x23, %cx
        movw    %cx, %ds
        movw    %cx, %es
        iret

/* u32 try86(cs, ip, eflags): SS = DS = 0x2000, SP = 0x100 */
        .globl  try86
try86:  enter
        movl    $0x2000, %ebx
        pushl   $0
        pushl   $0
        pushl   %ebx
        pushl   %ebx
        pushl   %ebx
        pushl   $0x100
        orl     $0x20000, %ecx
        pushl   %ecx
        pushl   %eax
        pushl   %edx
        iret

        .bss
        .globl  exc, recover_esp
        .balign 16
exc:    .skip   68
recover_esp: .long 0
