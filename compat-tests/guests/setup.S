# Real-mode part of a bzImage (Linux boot protocol 2.12) for the guest: a boot loader that enters in real mode gets here;
# one that uses the 32- or 64-bit entry skips it. PAYLOAD follows at 2 KiB.
    .section .setup, "ax"
    .code16
setup:
    .org 0x1f1
    .byte 3                             # setup_sects
    .word 0                             # root_flags
    .long (payload_end - payload + 15) / 16
    .word 0                             # ram_size
    .word 0xffff                        # vid_mode
    .word 0                             # root_dev
    .word 0xaa55
    .byte 0xeb, jump_on - 1f            # 0x200: jump
1:  .ascii "HdrS"
    .word 0x020c                        # version
    .long 0                             # realmode_swtch
    .word 0                             # start_sys_seg
    .word version_string - setup - 0x200
    .byte 0                             # type_of_loader
    .byte 0x01                          # loadflags: LOADED_HIGH
    .word 0                             # setup_move_size
    .long 0x100000                      # code32_start
    .long 0, 0                          # ramdisk_image, ramdisk_size
    .long 0                             # bootsect_kludge
    .word 0                             # heap_end_ptr
    .byte 0, 0
    .long 0                             # cmd_line_ptr
    .long 0x7fffffff                    # initrd_addr_max
    .long 0x100000                      # kernel_alignment
    .byte 0                             # relocatable_kernel
    .byte 20                            # min_alignment
    .word 1                             # xloadflags: 64-bit entry at 0x200
    .long 2047                          # cmdline_size
    .long 0                             # hardware_subarch
    .quad 0
    .long 0, 0                          # payload_offset, payload_length
    .quad 0                             # setup_data
    .quad 0x100000                      # pref_address
    .long 0x100000                      # init_size
    .long 0                             # handover_offset

jump_on:
    jmp start_of_setup
    .org 0x600                          # past the e820 table, which lies at 0x2d0
start_of_setup:                         # %ds = segment of this header
    cli
    cld
    movw %ds, %ax
    movw %ax, %es
    movw %ax, %ss
    movw $0x9000, %sp
    xorl %ebx, %ebx
    movw $0x2d0, %di                    # e820 table of boot_params
    movb $0, %cs:(entries - setup - 0x200)
1:  movl $0xe820, %eax
    movl $20, %ecx
    movl $0x534d4150, %edx
    int $0x15
    jc 2f
    cmpl $0x534d4150, %eax
    jne 2f
    incb %cs:(entries - setup - 0x200)
    addw $20, %di
    cmpb $32, %cs:(entries - setup - 0x200)
    jae 2f
    testl %ebx, %ebx
    jnz 1b
2:  movb %cs:(entries - setup - 0x200), %al
    movb %al, 0x1e8
    cli
    xorl %esi, %esi
    movw %ds, %si
    shll $4, %esi                       # linear address of boot_params
    leal gdt16 - setup(%esi), %eax
    movl %eax, gdtr16 + 2 - setup
    lgdtl gdtr16 - setup
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    movw $0x10, %ax                     # the entry expects flat data segments
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    ljmpl $0x08, $0x100100              # linux16_start
entries: .byte 0
version_string: .asciz "rqemu test guest"
    .balign 8
gdt16:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
gdtr16:
    .word 23
    .long 0
    .org 0x800
payload:
    .incbin PAYLOAD
payload_end:
    .balign 16
    .section .note.GNU-stack, "", @progbits
