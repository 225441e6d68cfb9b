//! The HMP commands.

mod block;
mod dev;
mod info;
mod mem;
mod net;
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
        "block_resize",
        &[Block("device"), Size("size")],
        "device size",
        "change the size of an image",
        block::block_resize,
    ),
    cmd(
        "change",
        &[Block("device"), Flag("-f"), File("target"), OptStr("format"), OptStr("read-only-mode")],
        "device [-f] filename [format [read-only-mode]]",
        "put another medium into a drive (-f: even if the guest has locked the tray)",
        block::change,
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
        "eject",
        &[Flag("-f"), Block("device")],
        "[-f] device",
        "take out a medium (-f: even if the guest has locked it)",
        block::eject,
    ),
    cmd(
        "getfd",
        &[Str("fdname")],
        "name",
        "take a file descriptor that came with this command and name it",
        dev::getfd,
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
    cmd(
        "memsave",
        &[Long("val"), Int("size"), Str("filename")],
        "addr size file",
        "write guest-virtual memory to a file",
        mem::memsave,
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
    cmd("o", &[Format, Int("addr"), Int("val")], "/fmt addr value", "write an I/O port", mem::port_out),
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
    cmd("stop|s", &[], "", "stop the guest", run::stop),
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
    cmd(
        "block",
        &[Flag("-n"), Flag("-v"), OptBlock("device")],
        "[-n] [-v] [device]",
        "show drives (-n: named nodes, -v: more)",
        block::info_block,
    ),
    cmd("blockstats", &[], "", "show counters of drives", block::info_blockstats),
    cmd("chardev", &[], "", "show character devices", info::chardev),
    cmd("cpus", &[], "", "show CPUs", info::cpus),
    cmd("history", &[], "", "show the lines that were typed", info::history),
    cmd("hotpluggable-cpus", &[], "", "show CPUs that are or can be plugged", info::hotpluggable_cpus),
    cmd("kvm", &[], "", "show whether KVM is used", info::kvm),
    cmd("memdev", &[], "", "show memory backends", info::memdev),
    cmd("memory_size_summary", &[], "", "show how much RAM there is", info::memory_size_summary),
    cmd("mice", &[], "", "show pointers and which one gets the events", info::mice),
    cmd(
        "mtree",
        &[Flag("-f"), Flag("-d"), Flag("-o"), Flag("-D")],
        "[-f][-d][-o][-D]",
        "show the memory map (-f: as the CPU sees it)",
        tree::mtree,
    ),
    cmd("name", &[], "", "show the guest's name", info::name),
    cmd("network", &[], "", "show back ends and cards of the network", net::info_network),
    cmd("pci", &[], "", "show PCI devices", info::pci),
    cmd("qom-tree", &[OptStr("path")], "[path]", "show the objects", tree::qom_tree),
    cmd("qtree", &[], "", "show the devices", tree::qtree),
    cmd("ramblock", &[], "", "show blocks of RAM", info::ramblock),
    cmd(
        "registers",
        &[Flag("-a"), OptInt("vcpu")],
        "[-a|vcpu]",
        "show CPU registers (-a: of all CPUs)",
        info::registers,
    ),
    cmd("status", &[], "", "show whether the guest runs", info::status),
    cmd("uuid", &[], "", "show the guest's UUID", info::uuid),
    cmd("version", &[], "", "show the version", info::version),
];
