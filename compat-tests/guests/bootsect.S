# Boot sector: greets on COM1, the debug ports 0x402 and 0xe9 and the text screen, reads sector 1 of its disk by INT 13h and
# prints the string there, then ends the machine. END: 1 isa-debug-exit (0xf4), 2 ACPI soft-off of the i440FX
# machine (port 0x604), 3 reset by the keyboard controller.
    .section .boot, "ax"
    .code16
boot:
    ljmp $0, $1f + 0x7c00 - boot
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive + 0x7c00 - boot
    movw $hello + 0x7c00 - boot, %si
    call puts
    movb drive + 0x7c00 - boot, %dl
    movw $0x0201, %ax                   # read one sector
    movw $0x0002, %cx                   # cylinder 0, sector 2
    movb $0, %dh
    movw $0x7e00, %bx
    int $0x13
    movw $failed + 0x7c00 - boot, %si
    jc 2f
    movw $0x7e00, %si
2:  call puts
#if END == 1
    movb $0x10, %al
    outb %al, $0xf4
#elif END == 2
    movw $0x604, %dx
    movw $0x2000, %ax
    outw %ax, %dx
#else
    movb $0xfe, %al
    outb %al, $0x64
#endif
3:  cli
    hlt
    jmp 3b

puts:                                   # %si: text, ends in 0
    lodsb
    testb %al, %al
    jz 2f
    movb %al, %cl
    movw $0x3fd, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    movb %cl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    movw $0x402, %dx
    outb %al, %dx
    outb %al, $0xe9
    movb $0x0e, %ah
    movw $7, %bx
    pushw %si
    int $0x10
    popw %si
    jmp puts
2:  ret

hello: .asciz "boot sector\r\n"
failed: .asciz "read failed\r\n"
drive: .byte 0
    .org 510
    .word 0xaa55
    .asciz "second sector\r\n"
    .org 2 << 20                        # large enough for a cylinder
    .section .note.GNU-stack, "", @progbits
