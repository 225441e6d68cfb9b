//! Debug and expert options.

use super::Action::{Call, Opts, OtherTarget, Refused};
use super::{arg, flag, OptDef};
use crate::groups;
use crate::lower::{chardev, config, firmware, machine, run};

/// "Debug/Expert options".
pub const OPTIONS: &[OptDef] = &[
    arg(
        "compat",
        Call(run::compat),
        "\
-compat [deprecated-input=accept|reject|crash][,deprecated-output=accept|hide]
-compat [unstable-input=accept|reject|crash][,unstable-output=accept|hide]
                policy for old and unstable interfaces (only 'accept' here)",
    ),
    arg(
        "fw_cfg",
        Opts(&groups::FW_CFG),
        "\
-fw_cfg [name=]<name>,file=<file>
                fw_cfg item with a file's contents
-fw_cfg [name=]<name>,string=<str>
                fw_cfg item with this text",
    ),
    arg("serial", Call(chardev::serial), "-serial dev     connect the next serial port to a chardev"),
    arg("parallel", Call(chardev::parallel), "-parallel dev   connect the next parallel port to a chardev"),
    arg("monitor", Call(chardev::monitor), "-monitor dev    a monitor on a chardev"),
    arg("qmp", Call(chardev::qmp), "-qmp dev        a QMP monitor on a chardev"),
    arg("qmp-pretty", Call(chardev::qmp_pretty), "-qmp-pretty dev the same with indented JSON"),
    arg("mon", Opts(&groups::MON), "-mon [chardev=]name[,mode=readline|control][,pretty[=on|off]]"),
    arg("debugcon", Call(chardev::debugcon), "-debugcon dev   connect the debug console (port 0xe9) to a chardev"),
    arg("pidfile", Call(run::pidfile), "-pidfile file   write the process id to a file"),
    flag("singlestep", Call(run::singlestep), "-singlestep     run one instruction at a time"),
    flag("preconfig", Call(run::preconfig), "--preconfig     wait for QMP before the machine is made (experimental)"),
    flag("S", Call(run::start_stopped), "-S              do not start the CPUs ('c' in the monitor does)"),
    arg(
        "overcommit",
        Opts(&groups::OVERCOMMIT),
        "\
-overcommit [mem-lock=on|off][cpu-pm=on|off]
                lock all memory; let the guest put the host's CPUs to sleep (both off)",
    ),
    arg("gdb", Call(chardev::gdb), "-gdb dev        let gdb connect to a chardev (add -S to wait for it)"),
    flag("s", Call(chardev::gdb_default), "-s              the same as -gdb tcp::1234"),
    arg("d", Call(run::log_items), "-d item1,...    log these items ('-d help' lists them)"),
    arg("D", Call(run::log_file), "-D logfile      log to a file (default stderr)"),
    arg("dfilter", Call(run::log_ranges), "-dfilter range,..  log only these guest addresses"),
    arg("seed", Call(run::seed), "-seed number       seed of the random number generator"),
    arg("L", Call(firmware::data_dir), "-L path         look for firmware and keymaps here"),
    flag("enable-kvm", Call(machine::enable_kvm), "-enable-kvm     use KVM"),
    arg("xen-domid", OtherTarget, ""),
    flag("xen-attach", OtherTarget, ""),
    flag("xen-domid-restrict", OtherTarget, ""),
    flag("no-reboot", Call(run::no_reboot), "-no-reboot      exit when the guest resets"),
    flag("no-shutdown", Call(run::no_shutdown), "-no-shutdown    stop when the guest powers off"),
    arg(
        "action",
        Opts(&groups::ACTION),
        "\
-action reboot=reset|shutdown
                   when the guest resets [default=reset]
-action shutdown=poweroff|pause
                   when it powers off [default=poweroff]
-action panic=pause|shutdown|exit-failure|none
                   when it panics [default=shutdown]
-action watchdog=reset|shutdown|poweroff|inject-nmi|pause|debug|none
                   when a watchdog fires [default=reset]",
    ),
    arg("loadvm", Call(run::loadvm), "-loadvm [tag|id]\n                start from a saved state"),
    flag("daemonize", Call(run::daemonize), "-daemonize      go into the background once ready"),
    arg("option-rom", Opts(&groups::OPTION_ROM), "-option-rom rom load an option ROM"),
    arg(
        "rtc",
        Opts(&groups::RTC),
        "\
-rtc [base=utc|localtime|<datetime>][,clock=host|rt|vm][,driftfix=none|slew]
                start and source of the clock, and whether lost ticks are made up for",
    ),
    arg(
        "icount",
        Opts(&groups::ICOUNT),
        "\
-icount [shift=N|auto][,align=on|off][,sleep=on|off][,rr=record|replay,rrfile=<filename>[,rrsnapshot=<snapshot>]]
                guest time counts instructions, 2^N ns each; record or replay a run",
    ),
    arg(
        "watchdog-action",
        Call(run::watchdog_action),
        "\
-watchdog-action reset|shutdown|poweroff|inject-nmi|pause|debug|none
                the same as -action watchdog=...",
    ),
    arg("echr", Call(run::echr), "-echr chr       escape character of the terminal instead of Ctrl-A"),
    arg(
        "incoming",
        Call(run::incoming),
        "\
-incoming tcp:[host]:port[,to=maxport][,ipv4=on|off][,ipv6=on|off]
-incoming unix:socketpath
-incoming fd:fd
-incoming exec:cmdline
-incoming defer
                wait for a migration stream from there (defer: QMP tells later)",
    ),
    flag("only-migratable", Call(run::only_migratable), "-only-migratable     refuse devices that cannot migrate"),
    flag("nodefaults", Call(run::nodefaults), "-nodefaults     no default devices"),
    arg("chroot", Call(run::chroot), "-chroot dir     change the root directory before the VM starts"),
    arg("runas", Call(run::runas), "-runas user     change to a user (name or uid:gid) before the VM starts"),
    arg("prom-env", OtherTarget, ""),
    flag("semihosting", OtherTarget, ""),
    arg("semihosting-config", OtherTarget, ""),
    flag("old-param", OtherTarget, ""),
    arg("g", OtherTarget, ""),
    arg(
        "sandbox",
        Opts(&groups::SANDBOX),
        "\
-sandbox on[,obsolete=allow|deny][,elevateprivileges=allow|deny|children]
          [,spawn=allow|deny][,resourcecontrol=allow|deny]
                filter system calls (default 'off')",
    ),
    arg("readconfig", Call(config::readconfig), "-readconfig <file>\n                take options from a file"),
    flag(
        "no-user-config",
        Call(run::no_user_config),
        "-no-user-config\n                do not read default configuration files",
    ),
    arg("trace", Opts(&groups::TRACE), "-trace [[enable=]<pattern>][,events=<file>][,file=<file>]\n                trace events"),
    arg("plugin", Refused, "-plugin [file=]<file>[,<argname>=<argvalue>]\n                not supported"),
    arg("qtest", Call(chardev::qtest), ""),
    arg("qtest-log", Call(run::qtest_log), ""),
    flag("async-teardown", Call(run::async_teardown), "-async-teardown free guest memory in the background at exit"),
    arg(
        "msg",
        Opts(&groups::MSG),
        "\
-msg [timestamp[=on|off]][,guest-name=[on|off]]
                time and guest name in front of messages (both off)",
    ),
    arg("dump-vmstate", Call(run::dump_vmstate), "-dump-vmstate <file>\n                describe the migration format as JSON"),
    flag("enable-sync-profile", Refused, "-enable-sync-profile\n                not supported"),
];
