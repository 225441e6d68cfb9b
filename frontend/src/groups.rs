//! The option groups: which keys each knows and of what type. From here come the checks of option text,
//! `-set`, `-readconfig`, `-GROUP help` and QMP's `query-command-line-options`.

/// Type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any text.
    Str,
    /// `on` or `off`.
    Bool,
    /// An unsigned 64-bit number in C notation.
    Number,
    /// A number with a unit.
    Size,
}

impl Type {
    /// As help prints it.
    pub fn help_name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Bool => "bool (on/off)",
            Self::Number => "num",
            Self::Size => "size",
        }
    }

    /// As `query-command-line-options` names it.
    pub fn qmp_name(self) -> &'static str {
        match self {
            Self::Str => "string",
            Self::Bool => "boolean",
            Self::Number => "number",
            Self::Size => "size",
        }
    }
}

/// A group of options that are parsed alike.
#[derive(Debug)]
pub struct OptGroup {
    /// Name used by `-set`, `-readconfig` and messages.
    pub name: &'static str,
    /// Key of a first word without `=`.
    pub implied: Option<&'static str>,
    /// All occurrences make one set, which has no id.
    pub merge: bool,
    /// Known keys; none = any key goes, and is checked later.
    pub params: &'static [(&'static str, Type)],
}

impl OptGroup {
    /// Type of `key`: `None` = unknown to this group.
    pub fn type_of(&self, key: &str) -> Option<Type> {
        if self.params.is_empty() {
            return Some(Type::Str);
        }
        self.params.iter().find(|(name, _)| *name == key).map(|(_, t)| *t)
    }

    /// Text of `-GROUP …,help`.
    pub fn help(&self) -> String {
        let mut names: Vec<_> = self.params.to_vec();
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut out = format!("{} options:\n", self.name);
        for (name, ty) in names {
            out += &format!("  {name}=<{}>\n", ty.help_name());
        }
        out
    }
}

macro_rules! groups {
    ($($konst:ident $name:literal $implied:expr, $merge:expr, [$($key:literal : $ty:ident),* $(,)?];)*) => {
        $(
            #[doc = concat!("Group `", $name, "`.")]
            pub static $konst: OptGroup = OptGroup {
                name: $name,
                implied: $implied,
                merge: $merge,
                params: &[$(($key, Type::$ty)),*],
            };
        )*
        /// Every group.
        pub static GROUPS: &[&OptGroup] = &[$(&$konst),*];
    };
}

groups! {
    DRIVE "drive" None, false, [];
    CHARDEV "chardev" Some("backend"), false, [
        "backend": Str, "path": Str, "host": Str, "port": Str, "fd": Str, "localaddr": Str, "localport": Str,
        "to": Number, "ipv4": Bool, "ipv6": Bool, "wait": Bool, "server": Bool, "delay": Bool, "nodelay": Bool,
        "reconnect": Number, "telnet": Bool, "tn3270": Bool, "tls-creds": Str, "tls-authz": Str,
        "websocket": Bool, "width": Number, "height": Number, "cols": Number, "rows": Number, "mux": Bool,
        "signal": Bool, "name": Str, "debug": Number, "size": Size, "chardev": Str, "append": Bool,
        "logfile": Str, "logappend": Bool, "mouse": Bool, "clipboard": Bool, "tight": Bool, "abstract": Bool,
    ];
    DEVICE "device" Some("driver"), false, [];
    NETDEV "netdev" Some("type"), false, [];
    NIC "nic" Some("type"), false, [];
    NET "net" Some("type"), false, [];
    RTC "rtc" None, true, ["base": Str, "clock": Str, "driftfix": Str];
    GLOBAL "global" None, false, ["driver": Str, "property": Str, "value": Str];
    MON "mon" Some("chardev"), false, ["mode": Str, "chardev": Str, "pretty": Bool];
    TRACE "trace" Some("enable"), false, ["enable": Str, "events": Str, "file": Str];
    OPTION_ROM "option-rom" Some("romfile"), false, ["bootindex": Number, "romfile": Str];
    ACCEL "accel" Some("accel"), false, [];
    MEMORY "memory" Some("size"), true, ["size": Size, "slots": Number, "maxmem": Size];
    SMP "smp-opts" Some("cpus"), true, [
        "cpus": Number, "sockets": Number, "dies": Number, "clusters": Number, "cores": Number,
        "threads": Number, "maxcpus": Number,
    ];
    BOOT "boot-opts" Some("order"), true, [
        "order": Str, "once": Str, "menu": Bool, "splash": Str, "splash-time": Number,
        "reboot-timeout": Number, "strict": Bool,
    ];
    ADD_FD "add-fd" None, false, ["fd": Number, "set": Number, "opaque": Str];
    OBJECT "object" Some("qom-type"), false, [];
    TPMDEV "tpmdev" Some("type"), false, [];
    OVERCOMMIT "overcommit" None, true, ["mem-lock": Bool, "cpu-pm": Bool];
    MSG "msg" None, true, ["timestamp": Bool, "guest-name": Bool];
    NAME "name" Some("guest"), true, ["guest": Str, "process": Str, "debug-threads": Bool];
    NUMA "numa" Some("type"), false, [];
    ICOUNT "icount" Some("shift"), true, [
        "shift": Str, "align": Bool, "sleep": Bool, "rr": Str, "rrfile": Str, "rrsnapshot": Str,
    ];
    FW_CFG "fw_cfg" Some("name"), false, ["name": Str, "file": Str, "string": Str, "gen_id": Str];
    ACTION "action" None, true, ["reboot": Str, "shutdown": Str, "panic": Str, "watchdog": Str];
    VNC "vnc" Some("vnc"), false, [
        "vnc": Str, "websocket": Str, "tls-creds": Str, "share": Str, "display": Str, "head": Number,
        "connections": Number, "to": Number, "ipv4": Bool, "ipv6": Bool, "password": Bool,
        "password-secret": Str, "reverse": Bool, "lock-key-sync": Bool, "key-delay-ms": Number, "sasl": Bool,
        "tls-authz": Str, "sasl-authz": Str, "lossy": Bool, "non-adaptive": Bool, "audiodev": Str,
        "power-control": Bool,
    ];
    ACPI "acpi" Some("data"), false, [];
    SMBIOS "smbios" None, false, [];
    FSDEV "fsdev" Some("fsdriver"), false, [
        "fsdriver": Str, "path": Str, "security_model": Str, "writeout": Str, "readonly": Bool,
        "multidevs": Str, "socket": Str, "sock_fd": Number, "fmode": Number, "dmode": Number,
        "throttling.iops-total": Number, "throttling.iops-read": Number, "throttling.iops-write": Number,
        "throttling.bps-total": Number, "throttling.bps-read": Number, "throttling.bps-write": Number,
        "throttling.iops-total-max": Number, "throttling.iops-read-max": Number,
        "throttling.iops-write-max": Number, "throttling.bps-total-max": Number,
        "throttling.bps-read-max": Number, "throttling.bps-write-max": Number,
        "throttling.iops-total-max-length": Number, "throttling.iops-read-max-length": Number,
        "throttling.iops-write-max-length": Number, "throttling.bps-total-max-length": Number,
        "throttling.bps-read-max-length": Number, "throttling.bps-write-max-length": Number,
        "throttling.iops-size": Number,
    ];
    VIRTFS "virtfs" Some("fsdriver"), false, [
        "fsdriver": Str, "path": Str, "mount_tag": Str, "security_model": Str, "writeout": Str,
        "readonly": Bool, "multidevs": Str, "socket": Str, "sock_fd": Number, "fmode": Number,
        "dmode": Number,
    ];
    SANDBOX "sandbox" Some("enable"), true, [
        "enable": Bool, "obsolete": Str, "elevateprivileges": Str, "spawn": Str, "resourcecontrol": Str,
    ];
    ISCSI "iscsi" None, false, [
        "user": Str, "password": Str, "password-secret": Str, "header-digest": Str, "initiator-name": Str,
        "timeout": Number,
    ];
    SPICE "spice" None, true, [
        "port": Number, "tls-port": Number, "addr": Str, "ipv4": Bool, "ipv6": Bool, "unix": Bool,
        "password": Str, "password-secret": Str, "disable-ticketing": Bool, "disable-copy-paste": Bool,
        "disable-agent-file-xfer": Bool, "sasl": Bool, "x509-dir": Str, "x509-key-file": Str,
        "x509-key-password": Str, "x509-cert-file": Str, "x509-cacert-file": Str, "x509-dh-key-file": Str,
        "tls-ciphers": Str, "tls-channel": Str, "plaintext-channel": Str, "image-compression": Str,
        "jpeg-wan-compression": Str, "zlib-glz-wan-compression": Str, "streaming-video": Str,
        "agent-mouse": Bool, "playback-compression": Bool, "seamless-migration": Bool, "display": Str,
        "head": Number, "gl": Bool, "rendernode": Str,
    ];
    PLUGIN "plugin" Some("file"), false, [];
}

/// The group of that name, for `-set` and `-readconfig`.
pub fn find(name: &str) -> Option<&'static OptGroup> {
    GROUPS.iter().copied().find(|g| g.name == name)
}
