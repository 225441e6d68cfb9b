//! Machine, CPU, memory, boot.

use super::Action::{Call, Opts};
use super::{arg, flag, OptDef};
use crate::groups;
use crate::lower::{block, config, device, display, firmware, machine, run};

/// "Standard options".
pub const OPTIONS: &[OptDef] = &[
    flag("h", Call(run::help), "-h or -help     show this text"),
    flag("help", Call(run::help), ""),
    flag("version", Call(run::version), "-version        show the version"),
    arg(
        "machine",
        Call(machine::machine),
        "\
-machine [type=]name[,prop[=value][,...]]
                machine to emulate ('-machine help' lists them)
                property accel=accel1[:accel2[:...]] names accelerators to try in turn
                supported accelerators are kvm or tcg (default: tcg)
                vmport=on|off|auto VMware's I/O port (default: auto)
                dump-guest-core=on|off guest memory in core dumps (default=on)
                mem-merge=on|off let the host merge equal pages (default: on)
                suppress-vmdesc=on|off no description in migration streams (default=off)
                nvdimm=on|off NVDIMM support (default=off)
                hmat=on|off ACPI HMAT table (default=off)
                memory-backend='backend-id' object that holds the main RAM (default=none)",
    ),
    arg("M", Call(machine::machine), ""),
    arg("cpu", Call(machine::cpu), "-cpu cpu        CPU model ('-cpu help' lists them)"),
    arg(
        "accel",
        Opts(&groups::ACCEL),
        "\
-accel [accel=]accelerator[,prop[=value][,...]]
                accelerator (kvm or tcg; 'help' lists them); given again, the next to try
                kernel-irqchip=on|off|split interrupt controllers in the kernel (default=on)
                kvm-shadow-mem=size of the MMU's shadow in bytes
                tb-size=n (MiB of translated code)
                dirty-ring-size=n (KVM dirty ring entries, default 0)
                thread=single|multi (one thread for all CPUs, or one each)",
    ),
    arg(
        "smp",
        Call(machine::smp),
        "\
-smp [[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,dies=dies][,clusters=clusters][,cores=cores][,threads=threads]
                number of CPUs at start (default 1), and how they are arranged;
                maxcpus counts those that may be plugged in later too",
    ),
    arg(
        "numa",
        Opts(&groups::NUMA),
        "\
-numa node[,mem=size][,cpus=firstcpu[-lastcpu]][,nodeid=node][,initiator=node]
-numa node[,memdev=id][,cpus=firstcpu[-lastcpu]][,nodeid=node][,initiator=node]
-numa dist,src=source,dst=destination,val=distance
-numa cpu,node-id=node[,socket-id=x][,core-id=y][,thread-id=z]
-numa hmat-lb,initiator=node,target=node,hierarchy=memory|first-level|second-level|third-level,data-type=access-latency|read-latency|write-latency[,latency=lat][,bandwidth=bw]
-numa hmat-cache,node-id=node,size=size,level=level[,associativity=none|direct|complex][,policy=none|write-back|write-through][,line=size]",
    ),
    arg(
        "add-fd",
        Opts(&groups::ADD_FD),
        "\
-add-fd fd=fd,set=set[,opaque=opaque]
                put an inherited descriptor into a set",
    ),
    arg(
        "set",
        Call(config::set),
        "\
-set group.id.arg=value
                change an argument of an option given before, for example
                -set drive.disk1.file=/path/to/image",
    ),
    arg(
        "global",
        Call(machine::global),
        "\
-global driver.property=value
-global driver=driver,property=property,value=value
                default value of a property for all devices of a class",
    ),
    arg(
        "boot",
        Call(machine::boot),
        "\
-boot [order=drives][,once=drives][,menu=on|off]
      [,splash=sp_name][,splash-time=sp_time][,reboot-timeout=rb_time][,strict=on|off]
                drives to boot from: floppy (a), hard disk (c), CD-ROM (d), network (n)
                splash is a picture file shown sp_time ms with the menu;
                rb_time is the ms until a failed boot is tried again",
    ),
    arg(
        "m",
        Opts(&groups::MEMORY),
        "\
-m [size=]megs[,slots=n,maxmem=size]
                guest RAM (default 128 MiB), slots for more and the limit with it",
    ),
    arg("mem-path", Call(machine::mem_path), "-mem-path FILE  file or directory that backs the guest RAM"),
    flag("mem-prealloc", Call(machine::mem_prealloc), "-mem-prealloc   allocate all guest RAM at start"),
    arg("k", Call(display::keymap), "-k language     keyboard layout (for example 'fr')"),
    flag("audio-help", Call(device::audio_help), "-audio-help     show the audio settings as -audiodev options"),
    arg(
        "audio",
        Call(device::audio_option),
        "\
-audio [driver=]driver,model=value[,prop[=value][,...]]
                audio backend and a sound card on it ('model=help' lists them)",
    ),
    arg(
        "audiodev",
        Call(device::audiodev),
        "\
-audiodev [driver=]driver,id=id[,prop[=value][,...]]
                audio backend ('-audiodev help' lists them)
                timer-period= microseconds
                in|out.mixing-engine=, fixed-settings=, frequency=, channels=,
                format=s8|s16|s32|u8|u16|u32|f32, voices=, buffer-length=
-audiodev none,id=id,[,prop[=value][,...]]
-audiodev alsa,id=id[,prop[=value][,...]]
-audiodev oss,id=id[,prop[=value][,...]]
-audiodev pa,id=id[,prop[=value][,...]]
-audiodev sdl,id=id[,prop[=value][,...]]
-audiodev sndio,id=id[,prop[=value][,...]]
-audiodev spice,id=id[,prop[=value][,...]]
-audiodev dbus,id=id[,prop[=value][,...]]
-audiodev wav,id=id[,prop[=value][,...]]",
    ),
    arg(
        "device",
        Call(device::device),
        "\
-device driver[,prop[=value][,...]]
                add a device; '-device help' lists drivers,
                '-device driver,help' its properties",
    ),
    arg(
        "name",
        Opts(&groups::NAME),
        "\
-name string1[,process=string2][,debug-threads=on|off]
                name of the guest, of the process, and names for its threads",
    ),
    arg("uuid", Call(firmware::uuid), "-uuid %08x-%04x-%04x-%04x-%012x\n                UUID of the machine"),
];

/// "i386 target only".
pub const I386: &[OptDef] = &[
    flag("win2k-hack", Call(run::win2k_hack), "-win2k-hack     get around a bug of the Windows 2000 installer"),
    flag("no-fd-bootchk", Call(machine::no_fd_bootchk), "-no-fd-bootchk  boot floppies without a boot signature too"),
    flag("no-acpi", Call(machine::no_acpi), "-no-acpi        leave ACPI out"),
    flag("no-hpet", Call(machine::no_hpet), "-no-hpet        leave the HPET out"),
    arg(
        "acpitable",
        Opts(&groups::ACPI),
        "\
-acpitable [sig=str][,rev=n][,oem_id=str][,oem_table_id=str][,oem_rev=n][,asl_compiler_id=str][,asl_compiler_rev=n][,{data|file}=file1[:file2]...]
                add an ACPI table",
    ),
    arg(
        "smbios",
        Opts(&groups::SMBIOS),
        "\
-smbios file=binary
-smbios type=0[,vendor=str][,version=str][,date=str][,release=%d.%d]
              [,uefi=on|off]
-smbios type=1[,manufacturer=str][,product=str][,version=str][,serial=str]
              [,uuid=uuid][,sku=str][,family=str]
-smbios type=2[,manufacturer=str][,product=str][,version=str][,serial=str]
              [,asset=str][,location=str]
-smbios type=3[,manufacturer=str][,version=str][,serial=str][,asset=str]
              [,sku=str]
-smbios type=4[,sock_pfx=str][,manufacturer=str][,version=str][,serial=str]
              [,asset=str][,part=str][,max-speed=%d][,current-speed=%d]
              [,processor-id=%d]
-smbios type=8[,external_reference=str][,internal_reference=str][,connector_type=%d][,port_type=%d]
-smbios type=11[,value=str][,path=filename]
-smbios type=17[,loc_pfx=str][,bank=str][,manufacturer=str][,serial=str]
               [,asset=str][,part=str][,speed=%d]
-smbios type=41[,designation=str][,kind=str][,instance=%d][,pcidev=str]
                fill in or add SMBIOS structures",
    ),
];

/// "Boot Image or Kernel specific".
pub const BOOT: &[OptDef] = &[
    arg("bios", Call(machine::bios), "-bios file      firmware image"),
    arg("pflash", Call(block::pflash), "-pflash file    image for a parallel flash chip"),
    arg("kernel", Call(machine::kernel), "-kernel bzImage kernel to boot directly"),
    arg("append", Call(machine::append), "-append cmdline command line for it"),
    arg("initrd", Call(machine::initrd), "-initrd file    initial ramdisk for it"),
    arg("dtb", Call(machine::dtb), "-dtb    file    device tree for it"),
];
