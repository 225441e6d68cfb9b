//! The HMP commands.

mod backend;
mod block;
mod dev;
mod drives;
mod host;
mod info;
mod mem;
mod mtree;
mod net;
mod pages;
mod run;
mod tree;

use super::help;
use super::table::{Arg, HmpCommand};

const fn cmd(
    name: &'static str,
    args: &'static [Arg],
    params: &'static str,
    help: &'static str,
    run: fn(&mut super::HmpCx<'_, '_, '_>, &super::Args),
) -> HmpCommand {
    HmpCommand { name, args, params, help, run, complete: None, sub: None }
}

const fn complete(command: HmpCommand, with: super::table::Complete) -> HmpCommand {
    HmpCommand { complete: Some(with), ..command }
}

use Arg::*;

/// All commands, sorted as `help` lists them.
pub static COMMANDS: &[HmpCommand] = &[
    cmd(
        "announce_self",
        &[OptStr("interfaces"), OptStr("id")],
        "[interfaces] [id]",
        "tell the network where the guest's addresses are",
        net::announce_self,
    ),
    cmd(
        "balloon",
        &[Mega("value")],
        "target",
        "ask the guest to keep so much memory (in MiB)",
        backend::balloon,
    ),
    cmd(
        "block_job_cancel",
        &[Flag("-f"), Block("device")],
        "[-f] device",
        "end a block job (-f: at once, even if its copy is not in sync)",
        drives::block_job_cancel,
    ),
    cmd(
        "block_job_complete",
        &[Block("device")],
        "device",
        "end a block job and use its copy",
        drives::block_job_complete,
    ),
    cmd("block_job_pause", &[Block("device")], "device", "pause a block job", drives::block_job_pause),
    cmd("block_job_resume", &[Block("device")], "device", "continue a paused block job", drives::block_job_resume),
    cmd(
        "block_job_set_speed",
        &[Block("device"), Long("speed")],
        "device speed",
        "limit the speed of a block job",
        drives::block_job_set_speed,
    ),
    cmd(
        "block_resize",
        &[Block("device"), Size("size")],
        "device size",
        "change the size of an image",
        block::block_resize,
    ),
    cmd(
        "block_stream",
        &[Block("device"), OptLong("speed"), OptStr("base")],
        "device [speed [base]]",
        "copy what a drive reads from its backing images into the drive",
        drives::block_stream,
    ),
    cmd("boot_set", &[Str("bootdevice")], "bootdevice", "set what firmware boots from", run::boot_set),
    cmd(
        "change",
        &[Block("device"), Flag("-f"), File("target"), OptStr("format"), OptStr("read-only-mode")],
        "device [-f] filename [format [read-only-mode]]",
        "put another medium into a drive (-f: even if the guest has locked the tray)",
        block::change,
    ),
    cmd("chardev-add", &[Str("args")], "args", "add a character device", backend::chardev_add),
    cmd(
        "chardev-change",
        &[Str("id"), Str("args")],
        "id args",
        "put another back end behind a character device",
        backend::chardev_change,
    ),
    cmd("chardev-remove", &[Str("id")], "id", "remove a character device", dev::chardev_remove),
    cmd(
        "chardev-send-break",
        &[Str("id")],
        "id",
        "send a break to a character device",
        dev::chardev_send_break,
    ),
    cmd("closefd", &[Str("fdname")], "name", "close a named file descriptor", dev::closefd),
    cmd(
        "commit",
        &[Block("device")],
        "device|all",
        "write a snapshot's changes to its backing image",
        block::commit,
    ),
    cmd("cont|c", &[], "", "let the guest run", run::cont),
    cmd("cpu", &[Int("index")], "index", "choose the CPU that other commands look at", run::cpu),
    complete(
        cmd("device_add", &[Rest("device")], "driver[,prop=value][,...]", "plug a device", dev::device_add),
        dev::complete_driver,
    ),
    complete(
        cmd("device_del", &[Str("id")], "device", "unplug a device", dev::device_del),
        dev::complete_device,
    ),
    cmd(
        "drive_add",
        &[Flag("-n"), Str("pci_addr"), Rest("opts")],
        "[-n] [[<domain>:]<bus>:]<slot>\n[file=file][,if=type][,bus=n]\n[,unit=m][,media=d][,index=i]\n[,snapshot=on|off][,cache=on|off]\n[,readonly=on|off][,copy-on-read=on|off]",
        "make a drive for a device to come (-n: a named node)",
        drives::drive_add,
    ),
    cmd(
        "drive_backup",
        &[Flag("-n"), Flag("-f"), Flag("-c"), Block("device"), Str("target"), OptStr("format")],
        "[-n] [-f] [-c] device target [format]",
        "copy what a drive holds now into a file (-n: which exists, -f: with what comes from backing images, -c: \
         compressed)",
        drives::drive_backup,
    ),
    cmd("drive_del", &[Block("id")], "device", "take a drive away", drives::drive_del),
    cmd(
        "drive_mirror",
        &[Flag("-n"), Flag("-f"), Block("device"), Str("target"), OptStr("format")],
        "[-n] [-f] device target [format]",
        "have a file follow a drive (-n: which exists, -f: with what comes from backing images)",
        drives::drive_mirror,
    ),
    cmd(
        "dump-guest-memory",
        &[
            Flag("-p"),
            Flag("-d"),
            Flag("-z"),
            Flag("-l"),
            Flag("-s"),
            Flag("-w"),
            File("filename"),
            OptLong("begin"),
            OptLong("length"),
        ],
        "[-p] [-d] [-z|-l|-s|-w] filename [begin length]",
        "write guest memory to an ELF core file (-p: by the guest's page tables)",
        host::dump_guest_memory,
    ),
    cmd("dumpdtb", &[File("filename")], "filename", "write the device tree to a file", host::dumpdtb),
    cmd(
        "eject",
        &[Flag("-f"), Block("device")],
        "[-f] device",
        "take out a medium (-f: even if the guest has locked it)",
        block::eject,
    ),
    cmd("exit_preconfig", &[], "", "leave the state before the machine is built", host::exit_preconfig),
    cmd(
        "getfd",
        &[Str("fdname")],
        "name",
        "take a file descriptor that came with this command and name it",
        dev::getfd,
    ),
    cmd(
        "gpa2hpa",
        &[Long("addr")],
        "addr",
        "show the host-physical address of guest-physical memory",
        mem::gpa2hpa,
    ),
    cmd(
        "gpa2hva",
        &[Long("addr")],
        "addr",
        "show the host-virtual address of guest-physical memory",
        mem::gpa2hva,
    ),
    cmd(
        "gva2gpa",
        &[Long("addr")],
        "addr",
        "show the guest-physical address of a guest-virtual one",
        mem::gva2gpa,
    ),
    complete(
        cmd("help|?", &[Rest("name")], "[cmd]", "show what commands there are", help::help),
        help::complete,
    ),
    cmd("i", &[Format, Int("addr"), OptDot("index")], "/fmt addr", "read an I/O port", mem::port_in),
    HmpCommand {
        sub: Some(INFO),
        ..cmd("info", &[Rest("item")], "[subcommand]", "show facts about the machine", run::never)
    },
    cmd("loadvm", &[Str("name")], "tag", "go back to a snapshot of the machine", host::loadvm),
    cmd(
        "memsave",
        &[Long("val"), Int("size"), Str("filename")],
        "addr size file",
        "write guest-virtual memory to a file",
        mem::memsave,
    ),
    cmd(
        "migrate_set_capability",
        &[Str("capability"), Bool("state")],
        "capability state",
        "switch a capability of migration",
        host::migrate_set_capability,
    ),
    cmd(
        "mouse_button",
        &[Int("state")],
        "state",
        "set the pointer's buttons (1=left, 2=right, 4=middle)",
        dev::mouse_button,
    ),
    cmd(
        "mouse_move",
        &[Str("dx"), Str("dy"), OptStr("dz")],
        "dx dy [dz]",
        "move the pointer",
        dev::mouse_move,
    ),
    cmd("mouse_set", &[Int("index")], "index", "choose the pointer that gets the events", dev::mouse_set),
    cmd(
        "netdev_add",
        &[Rest("netdev")],
        "type,id=str[,prop=value][,...]",
        "add a network back end",
        net::netdev_add,
    ),
    cmd("netdev_del", &[Str("id")], "id", "remove a network back end", net::netdev_del),
    cmd("nmi", &[], "", "send a non-maskable interrupt to all CPUs", host::inject_nmi),
    cmd("o", &[Format, Int("addr"), Int("val")], "/fmt addr value", "write an I/O port", mem::port_out),
    cmd(
        "object_add",
        &[Rest("object")],
        "[qom-type=]type,id=str[,prop=value][,...]",
        "create an object",
        backend::object_add,
    ),
    complete(
        cmd("object_del", &[Str("id")], "id", "delete an object", backend::object_del),
        backend::complete_object,
    ),
    cmd(
        "pmemsave",
        &[Long("val"), Int("size"), Str("filename")],
        "addr size file",
        "write guest-physical memory to a file",
        mem::pmemsave,
    ),
    cmd(
        "print|p",
        &[Format, Long("val")],
        "/fmt expr",
        "show the value of an expression (use $reg for a CPU register)",
        mem::print,
    ),
    cmd(
        "qom-get",
        &[Str("path"), Str("property")],
        "path property",
        "show a property of an object",
        tree::qom_get,
    ),
    cmd("qom-list", &[OptStr("path")], "path", "list the properties of an object", tree::qom_list),
    cmd(
        "qom-set",
        &[Flag("-j"), Str("path"), Str("property"), Rest("value")],
        "[-j] path property value",
        "set a property of an object (-j: value is JSON)",
        tree::qom_set,
    ),
    cmd("quit|q", &[], "", "end the program", run::quit),
    cmd("replay_break", &[Long("icount")], "icount", "stop replay at an instruction", host::replay_break),
    cmd("replay_delete_break", &[], "", "delete the breakpoint of replay", host::replay_delete_break),
    cmd("replay_seek", &[Long("icount")], "icount", "replay up to an instruction", host::replay_seek),
    cmd(
        "ringbuf_read",
        &[Str("device"), Int("size")],
        "device size",
        "take bytes out of a ring buffer",
        backend::ringbuf_read,
    ),
    cmd(
        "ringbuf_write",
        &[Str("device"), Str("data")],
        "device data",
        "put text into a ring buffer",
        backend::ringbuf_write,
    ),
    cmd("savevm", &[OptStr("name")], "tag", "save a snapshot of the machine", host::savevm),
    cmd(
        "screendump",
        &[File("filename"), FlagStr("-f"), OptStr("device"), OptInt("head")],
        "filename [-f format] [device [head]]",
        "write the screen to a file (ppm or png)",
        dev::screendump,
    ),
    complete(
        cmd(
            "sendkey",
            &[Str("keys"), OptInt("hold-time")],
            "keys [hold_ms]",
            "press keys (for example ctrl-alt-f1) and release them, with 10 ms or the given time between the steps",
            dev::sendkey,
        ),
        dev::complete_key,
    ),
    cmd(
        "set_link",
        &[Str("name"), Bool("up")],
        "name on|off",
        "take the link of a card or back end up or down",
        net::set_link,
    ),
    cmd(
        "snapshot_blkdev",
        &[Flag("-n"), Block("device"), OptStr("snapshot-file"), OptStr("format")],
        "[-n] device [new-image-file] [format]",
        "freeze a drive's image and go on in a new one (-n: which exists)",
        drives::snapshot_blkdev,
    ),
    cmd(
        "snapshot_blkdev_internal",
        &[Block("device"), Str("name")],
        "device name",
        "take a snapshot inside a drive's image",
        drives::snapshot_blkdev_internal,
    ),
    cmd(
        "snapshot_delete_blkdev_internal",
        &[Block("device"), Str("name"), OptStr("id")],
        "device name [id]",
        "remove a snapshot from a drive's image",
        drives::snapshot_delete_blkdev_internal,
    ),
    cmd("stop|s", &[], "", "stop the guest", run::stop),
    cmd("sum", &[Long("start"), Int("size")], "addr size", "compute the checksum of memory", mem::sum),
    cmd("system_powerdown", &[], "", "press the power button", run::system_powerdown),
    cmd("system_reset", &[], "", "reset the machine", run::system_reset),
    cmd("system_wakeup", &[], "", "wake the guest up from suspend", run::system_wakeup),
    complete(
        cmd(
            "watchdog_action",
            &[Str("action")],
            "[reset|shutdown|poweroff|pause|debug|none|inject-nmi]",
            "set what an expired watchdog does",
            run::watchdog_action,
        ),
        run::complete_watchdog,
    ),
    cmd("x", &[Format, Long("addr")], "/fmt addr", "show guest-virtual memory", mem::x),
    cmd("xp", &[Format, Long("addr")], "/fmt addr", "show guest-physical memory", mem::xp),
];

/// Commands behind `info`.
pub static INFO: &[HmpCommand] = &[
    cmd("balloon", &[], "", "show how much memory the guest keeps", backend::info_balloon),
    cmd(
        "block",
        &[Flag("-n"), Flag("-v"), OptBlock("device")],
        "[-n] [-v] [device]",
        "show drives (-n: named nodes, -v: more)",
        block::info_block,
    ),
    cmd("block-jobs", &[], "", "show block jobs", drives::info_block_jobs),
    cmd("blockstats", &[], "", "show counters of drives", block::info_blockstats),
    cmd("chardev", &[], "", "show character devices", info::chardev),
    cmd("cpus", &[], "", "show CPUs", info::cpus),
    cmd("dump", &[], "", "show how the last dump ended", host::dump),
    cmd("history", &[], "", "show the lines that were typed", info::history),
    cmd("hotpluggable-cpus", &[], "", "show CPUs that are or can be plugged", info::hotpluggable_cpus),
    cmd("iothreads", &[], "", "show I/O threads", backend::info_iothreads),
    cmd("irq", &[], "", "show how often interrupts came", host::irq),
    cmd("jit", &[], "", "show the state of the translator", host::jit),
    cmd("kvm", &[], "", "show whether KVM is used", info::kvm),
    cmd("mem", &[], "", "show ranges of virtual memory", pages::mem),
    cmd("memdev", &[], "", "show memory backends", info::memdev),
    cmd("memory-devices", &[], "", "show memory modules", host::nothing),
    cmd("memory_size_summary", &[], "", "show how much RAM there is", info::memory_size_summary),
    cmd("mice", &[], "", "show pointers and which one gets the events", info::mice),
    cmd("migrate_capabilities", &[], "", "show capabilities of migration", host::migrate_capabilities),
    cmd(
        "mtree",
        &[Flag("-f"), Flag("-d"), Flag("-o"), Flag("-D")],
        "[-f][-d][-o][-D]",
        "show the memory map (-f: as the CPU sees it)",
        mtree::mtree,
    ),
    cmd("name", &[], "", "show the guest's name", info::name),
    cmd("network", &[], "", "show back ends and cards of the network", net::info_network),
    cmd("numa", &[], "", "show NUMA nodes", host::numa),
    cmd("opcount", &[], "", "show how often instructions were translated", host::opcount),
    cmd("pci", &[], "", "show PCI devices", info::pci),
    cmd("profile", &[], "", "show what the profiler found", host::profile),
    cmd("qom-tree", &[OptStr("path")], "[path]", "show the objects", tree::qom_tree),
    cmd("qtree", &[], "", "show the devices", tree::qtree),
    cmd("ramblock", &[], "", "show blocks of RAM", host::ramblock),
    cmd("rdma", &[], "", "show RDMA devices", host::rdma),
    cmd(
        "registers",
        &[Flag("-a"), OptInt("vcpu")],
        "[-a|vcpu]",
        "show CPU registers (-a: of all CPUs)",
        info::registers,
    ),
    cmd("replay", &[], "", "show the state of replay", host::replay),
    cmd("sev", &[], "", "show the state of memory encryption", host::sev),
    cmd("sgx", &[], "", "show memory for enclaves", host::sgx),
    cmd(
        "stats",
        &[Str("target"), OptStr("names"), OptStr("provider")],
        "target [names] [provider]",
        "show statistics of the machine (vm) or of its CPU (vcpu); names are separated by commas",
        host::stats,
    ),
    cmd("status", &[], "", "show whether the guest runs", info::status),
    cmd("tlb", &[], "", "show how pages are mapped", pages::tlb),
    cmd("tpm", &[], "", "show TPM devices", host::nothing),
    cmd("usb", &[], "", "show USB devices", host::usb),
    cmd("uuid", &[], "", "show the guest's UUID", info::uuid),
    cmd("version", &[], "", "show the version", info::version),
    cmd("vm-generation-id", &[], "", "show the generation id of the guest", host::vm_generation_id),
];
