# Entry points of the test guest (Linux 32/64-bit boot protocol, PVH, multiboot, own ROM) and the way into long mode.
# All entries end in common32 with the kind of boot in %edi and its information block in %ebx.

.set KIND_LINUX32, 1
.set KIND_LINUX64, 2
.set KIND_PVH, 3
.set KIND_MULTIBOOT, 4
.set KIND_ROM, 5
.set KIND_LINUX16, 6

    .section .head, "ax"
    .code32
    .globl start32
start32:                                # Linux, 32-bit: %esi = boot_params
    cli
    movl $KIND_LINUX32, %edi
    movl %esi, %ebx
    jmp common32

    .org 0x40
    .globl rom_start
rom_start:                              # own ROM: nothing to tell
    movl $KIND_ROM, %edi
    xorl %ebx, %ebx
    jmp common32

    .org 0x80
    .globl pvh_start
pvh_start:                              # PVH: %ebx = hvm_start_info
    cli
    movl $KIND_PVH, %edi
    jmp common32

    .org 0xc0
    .globl multiboot_start
multiboot_start:                        # multiboot: %ebx = information
    cli
    movl $KIND_MULTIBOOT, %edi
    jmp common32

    .org 0x100
linux16_start:                          # from our own real-mode setup code: %esi = boot_params
    cli
    movl $KIND_LINUX16, %edi
    movl %esi, %ebx
    jmp common32

    .org 0x200
    .code64
start64:                                # Linux, 64-bit: %rsi = boot_params, paging on
    cli
    movl $KIND_LINUX64, %edi
    movl %esi, %ebx
    lgdt gdtr(%rip)
    pushq $0x08
    leaq leave64(%rip), %rax
    pushq %rax
    lretq
    .code32
leave64:                                # compatibility mode: leave long mode
    movl $0x10, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    andl $~0x100, %eax
    wrmsr
    jmp common32

#ifdef MULTIBOOT
    .balign 4
multiboot_header:
    .long 0x1badb002
    .long 0x00010003                    # page-aligned modules, memory map, addresses below are valid
    .long -(0x1badb002 + 0x00010003)
    .long multiboot_header
    .long __image_start
    .long __image_end
    .long __bss_end
    .long multiboot_start
#endif

common32:
    cld
    lgdt gdtr
    ljmp $0x08, $1f
1:  movl $0x10, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $stack_top, %esp
    movl %edi, %ebp
    movl $__image_end, %edi             # clear .bss
    movl $__bss_end, %ecx
    subl %edi, %ecx
    shrl $2, %ecx
    xorl %eax, %eax
    rep stosl
    movl %ebp, boot_kind
    movl %ebx, boot_info
    # Identity map of 4 GiB by 2 MiB pages, user access everywhere.
    movl $pdpt + 7, pml4
    movl $pd + 7, %eax
    movl $pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 1b
    movl $pd, %edi
    movl $0x87, %eax
    movl $2048, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    call enter_long
    .code64
    movq $stack_top, %rsp
    call kmain
1:  hlt
    jmp 1b

    .code32
    .globl enter_long
enter_long:                             # turns on paging and long mode; returns to 64-bit code
    popl %edx
    movl $pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax                    # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl %edx, %esi
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    andl $~0x6000000c, %eax             # caches on, no x87 traps
    orl $0x80000003, %eax
    movl %eax, %cr0
    ljmp $0x18, $1f
    .code64
1:  xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %esi, %esi
    jmp *%rsi

# --- second processors: copied to 0x8000, started there in real mode
    .section .rodata
    .globl ap_start, ap_end
    .code16
ap_start:
    cli
    lgdtl %cs:(ap_gdtr - ap_start)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $ap32
ap_gdtr:
    .word gdt_end - gdt - 1
    .long gdt
ap_end:

    .text
    .code32
ap32:
    movl $0x10, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $1, %eax                       # a stack of its own: 4 KiB each
    lock xaddl %eax, ap_stacks
    shll $12, %eax
    leal ap_stack_area + 4096(%eax), %esp
    movl %esp, %ebx
    call enter_long
    .code64
    movl %ebx, %esp
    call ap_main
1:  hlt
    jmp 1b

# --- exceptions and interrupts
    .altmacro
    .macro stub n
    .if (\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17)
    .else
    pushq $0
    .endif
    pushq $\n
    jmp isr_common
    .balign 16
    .endm
    .balign 16
    .globl isr_stubs
isr_stubs:
    .set i, 0
    .rept 64
    stub %i
    .set i, i + 1
    .endr

isr_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    cld
    call isr
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

# enter_user(fn): run fn in ring 3 with I/O rights; it never comes back
    .globl enter_user
enter_user:
    movl $0x23, %eax
    movw %ax, %ds
    movw %ax, %es
    pushq $0x23
    pushq $user_stack_top
    pushq $0x3002
    pushq $0x2b
    pushq %rdi
    iretq

    .data
    .balign 16
    .globl gdt, gdtr, tss_descriptor
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            # 08: code 32
    .quad 0x00cf93000000ffff            # 10: data
    .quad 0x00af9b000000ffff            # 18: code 64
    .quad 0x00cff3000000ffff            # 20: user data
    .quad 0x00affb000000ffff            # 28: user code 64
tss_descriptor:
    .quad 0, 0                          # 30: TSS
gdt_end:
gdtr:
    .word gdt_end - gdt - 1
    .quad gdt

    .globl boot_kind, boot_info
boot_kind: .quad 0
boot_info: .quad 0
ap_stacks: .long 0

    .section .note, "a", @note
    .balign 4
    .long 4, 4, 18                      # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

    .bss
    .balign 4096
pml4: .skip 4096
pdpt: .skip 4096
pd:   .skip 4 * 4096
    .skip 16384
    .globl stack_top, user_stack_top
stack_top:
    .skip 16384
user_stack_top:
ap_stack_area:
    .skip 8 * 4096
    .section .note.GNU-stack, "", @progbits
