# 64 KiB firmware image: starts at the reset vector, copies the guest to 1 MiB and enters it. PAYLOAD is the flat guest.
    .section .rom, "ax"
    .code16
rom:
    .incbin PAYLOAD
payload_end:
    .org 0xff00
stub16:
    cli
    lgdtl %cs:(rom_gdtr - rom)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(0xffff0000 + (stub32 - rom))
    .code32
stub32:
    movl $0x10, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    cld
    movl $0xffff0000, %esi
    movl $0x100000, %edi
    movl $(payload_end - rom + 3) / 4, %ecx
    rep movsl
    movl $0x100040, %eax                # rom_start
    jmp *%eax
    .balign 8
rom_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
rom_gdtr:
    .word 23
    .long 0xffff0000 + (rom_gdt - rom)
    .org 0xfff0
    .code16
    jmp stub16
    .org 0x10000
    .section .note.GNU-stack, "", @progbits
