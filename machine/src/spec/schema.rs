//! Structures of QEMU 7.2's management interface that options and QMP share, as data for [`visit`](super::visit).

use super::visit::Int;

/// A structure, perhaps with a tag that selects further members.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    /// Members that are always allowed, in the order they are checked.
    pub fields: &'static [Field],
    /// Selector.
    pub tag: Option<&'static Tag>,
}

/// The member that selects a branch.
#[derive(Debug)]
pub struct Tag {
    /// Its name; one of the structure's fields.
    pub name: &'static str,
    /// Value and further members; a value not listed has none.
    pub branches: &'static [(&'static str, &'static [Field])],
}

/// A member.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Must be there.
    pub required: bool,
}

/// Type of a member.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Unchecked.
    Any,
    /// Text.
    Str,
    /// Truth.
    Bool,
    /// Number.
    Int(&'static Int),
    /// Bytes.
    Size,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// Nested structure.
    Struct(&'static Struct),
    /// Items of one type.
    List(&'static Kind),
}

macro_rules! int {
    ($konst:ident, $name:literal, $min:expr, $max:expr) => {
        static $konst: Int = Int { name: $name, min: $min as i64, max: $max as u64 };
    };
}
int!(I64, "int64", i64::MIN, i64::MAX);
int!(U64, "uint64", 0, u64::MAX);
int!(I32, "int32_t", i32::MIN, i32::MAX);
int!(U32, "uint32_t", 0, u32::MAX);
int!(U16, "uint16_t", 0, u16::MAX);
int!(U8, "uint8_t", 0, u8::MAX);

const fn need(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

const fn opt(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

use Kind::{Bool, Size, Str};

const fn int(i: &'static Int) -> Kind {
    Kind::Int(i)
}

/// `{str: …}`: how QAPI wraps items of string lists in network options.
static WRAPPED: Struct = Struct { fields: &[need("str", Str)], tag: None };
static STRINGS: Kind = Kind::Struct(&WRAPPED);

/// `SocketAddress`.
pub static SOCKET_ADDRESS: Struct = Struct {
    fields: &[need("type", Kind::Enum(&["inet", "unix", "vsock", "fd"]))],
    tag: Some(&Tag {
        name: "type",
        branches: &[
            (
                "inet",
                &[
                    need("host", Str),
                    need("port", Str),
                    opt("numeric", Bool),
                    opt("to", int(&U16)),
                    opt("ipv4", Bool),
                    opt("ipv6", Bool),
                    opt("keep-alive", Bool),
                    opt("mptcp", Bool),
                ],
            ),
            ("unix", &[need("path", Str), opt("abstract", Bool), opt("tight", Bool)]),
            ("vsock", &[need("cid", Str), need("port", Str)]),
            ("fd", &[need("str", Str)]),
        ],
    }),
};

/// Names of network backends.
const NET_TYPES: &[&str] = &[
    "none",
    "nic",
    "user",
    "tap",
    "l2tpv3",
    "socket",
    "stream",
    "dgram",
    "vde",
    "bridge",
    "hubport",
    "netmap",
    "vhost-user",
    "vhost-vdpa",
];

static NET_BRANCHES: Tag = Tag {
    name: "type",
    branches: &[
        (
            "nic",
            &[
                opt("netdev", Str),
                opt("macaddr", Str),
                opt("model", Str),
                opt("addr", Str),
                opt("vectors", int(&U32)),
            ],
        ),
        ("user", USER),
        ("tap", TAP),
        ("l2tpv3", L2TPV3),
        (
            "socket",
            &[
                opt("fd", Str),
                opt("listen", Str),
                opt("connect", Str),
                opt("mcast", Str),
                opt("localaddr", Str),
                opt("udp", Str),
            ],
        ),
        ("stream", &[need("addr", Kind::Struct(&SOCKET_ADDRESS)), opt("server", Bool)]),
        (
            "dgram",
            &[opt("local", Kind::Struct(&SOCKET_ADDRESS)), opt("remote", Kind::Struct(&SOCKET_ADDRESS))],
        ),
        ("vde", &[opt("sock", Str), opt("port", int(&U16)), opt("group", Str), opt("mode", int(&U16))]),
        ("bridge", &[opt("br", Str), opt("helper", Str)]),
        ("hubport", &[need("hubid", int(&I32)), opt("netdev", Str)]),
        ("netmap", &[need("ifname", Str), opt("devname", Str)]),
        ("vhost-user", &[need("chardev", Str), opt("vhostforce", Bool), opt("queues", int(&I64))]),
        (
            "vhost-vdpa",
            &[opt("vhostdev", Str), opt("vhostfd", Str), opt("queues", int(&I64)), opt("x-svq", Bool)],
        ),
    ],
};

const USER: &[Field] = &[
    opt("hostname", Str),
    opt("restrict", Bool),
    opt("ipv4", Bool),
    opt("ipv6", Bool),
    opt("ip", Str),
    opt("net", Str),
    opt("host", Str),
    opt("tftp", Str),
    opt("bootfile", Str),
    opt("dhcpstart", Str),
    opt("dns", Str),
    opt("dnssearch", Kind::List(&STRINGS)),
    opt("domainname", Str),
    opt("ipv6-prefix", Str),
    opt("ipv6-prefixlen", int(&I64)),
    opt("ipv6-host", Str),
    opt("ipv6-dns", Str),
    opt("smb", Str),
    opt("smbserver", Str),
    opt("hostfwd", Kind::List(&STRINGS)),
    opt("guestfwd", Kind::List(&STRINGS)),
    opt("tftp-server-name", Str),
];

const TAP: &[Field] = &[
    opt("ifname", Str),
    opt("fd", Str),
    opt("fds", Str),
    opt("script", Str),
    opt("downscript", Str),
    opt("br", Str),
    opt("helper", Str),
    opt("sndbuf", Size),
    opt("vnet_hdr", Bool),
    opt("vhost", Bool),
    opt("vhostfd", Str),
    opt("vhostfds", Str),
    opt("vhostforce", Bool),
    opt("queues", int(&U32)),
    opt("poll-us", int(&U32)),
];

const L2TPV3: &[Field] = &[
    need("src", Str),
    need("dst", Str),
    opt("srcport", Str),
    opt("dstport", Str),
    opt("ipv6", Bool),
    opt("udp", Bool),
    opt("cookie64", Bool),
    opt("counter", Bool),
    opt("pincounter", Bool),
    opt("txcookie", int(&U64)),
    opt("rxcookie", int(&U64)),
    need("txsession", int(&U32)),
    opt("rxsession", int(&U32)),
    opt("offset", int(&U32)),
];

/// `Netdev`: `-netdev` and `netdev_add`.
pub static NETDEV: Struct =
    Struct { fields: &[need("id", Str), need("type", Kind::Enum(NET_TYPES))], tag: Some(&NET_BRANCHES) };

/// `-nic` and `-net`: the id may be missing.
pub static NET_LEGACY: Struct =
    Struct { fields: &[opt("id", Str), need("type", Kind::Enum(NET_TYPES))], tag: Some(&NET_BRANCHES) };

/// `NumaOptions`.
pub static NUMA: Struct = Struct {
    fields: &[need("type", Kind::Enum(&["node", "dist", "cpu", "hmat-lb", "hmat-cache"]))],
    tag: Some(&Tag {
        name: "type",
        branches: &[
            (
                "node",
                &[
                    opt("nodeid", int(&U16)),
                    opt("cpus", Kind::List(&Kind::Int(&U16))),
                    opt("mem", Size),
                    opt("memdev", Str),
                    opt("initiator", int(&U16)),
                ],
            ),
            ("dist", &[need("src", int(&U16)), need("dst", int(&U16)), need("val", int(&U8))]),
            (
                "cpu",
                &[
                    opt("node-id", int(&I64)),
                    opt("socket-id", int(&I64)),
                    opt("die-id", int(&I64)),
                    opt("cluster-id", int(&I64)),
                    opt("core-id", int(&I64)),
                    opt("thread-id", int(&I64)),
                ],
            ),
            (
                "hmat-lb",
                &[
                    need("initiator", int(&U16)),
                    need("target", int(&U16)),
                    need("hierarchy", Kind::Enum(&["memory", "first-level", "second-level", "third-level"])),
                    need(
                        "data-type",
                        Kind::Enum(&[
                            "access-latency",
                            "read-latency",
                            "write-latency",
                            "access-bandwidth",
                            "read-bandwidth",
                            "write-bandwidth",
                        ]),
                    ),
                    opt("latency", int(&U64)),
                    opt("bandwidth", Size),
                ],
            ),
            (
                "hmat-cache",
                &[
                    need("node-id", int(&U32)),
                    need("size", Size),
                    need("level", int(&U8)),
                    need("associativity", Kind::Enum(&["none", "direct", "complex"])),
                    need("policy", Kind::Enum(&["none", "write-back", "write-through"])),
                    need("line", int(&U16)),
                ],
            ),
        ],
    }),
};

/// `DisplayOptions`.
pub static DISPLAY: Struct = Struct {
    fields: &[
        need(
            "type",
            Kind::Enum(&["default", "none", "gtk", "sdl", "egl-headless", "curses", "spice-app", "dbus"]),
        ),
        opt("full-screen", Bool),
        opt("window-close", Bool),
        opt("show-cursor", Bool),
        opt("gl", Kind::Enum(&["off", "on", "core", "es"])),
    ],
    tag: Some(&Tag {
        name: "type",
        branches: &[
            (
                "gtk",
                &[
                    opt("grab-on-hover", Bool),
                    opt("zoom-to-fit", Bool),
                    opt("show-tabs", Bool),
                    opt("show-menubar", Bool),
                ],
            ),
            ("curses", &[opt("charset", Str)]),
            ("egl-headless", &[opt("rendernode", Str)]),
            ("dbus", &[opt("rendernode", Str), opt("addr", Str), opt("p2p", Bool), opt("audiodev", Str)]),
            ("sdl", &[opt("grab-mod", Kind::Enum(&["lctrl-lalt", "lshift-lctrl-lalt", "rctrl"]))]),
        ],
    }),
};

/// `SMPConfiguration`.
pub static SMP: Struct = Struct {
    fields: &[
        opt("cpus", int(&I64)),
        opt("sockets", int(&I64)),
        opt("dies", int(&I64)),
        opt("clusters", int(&I64)),
        opt("cores", int(&I64)),
        opt("threads", int(&I64)),
        opt("maxcpus", int(&I64)),
    ],
    tag: None,
};

/// `BootConfiguration`.
pub static BOOT: Struct = Struct {
    fields: &[
        opt("order", Str),
        opt("once", Str),
        opt("menu", Bool),
        opt("splash", Str),
        opt("splash-time", int(&I64)),
        opt("reboot-timeout", int(&I64)),
        opt("strict", Bool),
    ],
    tag: None,
};

/// `MemorySizeConfiguration`.
pub static MEMORY: Struct =
    Struct { fields: &[opt("size", Size), opt("max-size", Size), opt("slots", int(&U64))], tag: None };

/// Several of these in one structure, for checking `-machine smp.…,boot.…,memory.…`.
pub static MACHINE_PARTS: Struct = Struct {
    fields: &[
        opt("smp", Kind::Struct(&SMP)),
        opt("boot", Kind::Struct(&BOOT)),
        opt("memory", Kind::Struct(&MEMORY)),
    ],
    tag: None,
};

/// `CompatPolicy`.
pub static COMPAT: Struct = Struct {
    fields: &[
        opt("deprecated-input", Kind::Enum(&["accept", "reject", "crash"])),
        opt("deprecated-output", Kind::Enum(&["accept", "hide"])),
        opt("unstable-input", Kind::Enum(&["accept", "reject", "crash"])),
        opt("unstable-output", Kind::Enum(&["accept", "hide"])),
    ],
    tag: None,
};

const PCM: &[Field] = &[
    opt("mixing-engine", Bool),
    opt("fixed-settings", Bool),
    opt("frequency", int(&U32)),
    opt("channels", int(&U32)),
    opt("voices", int(&U32)),
    opt("format", Kind::Enum(&["u8", "s8", "u16", "s16", "u32", "s32", "f32"])),
    opt("buffer-length", int(&U32)),
];

macro_rules! per_direction {
    ($name:ident, $($more:expr),*) => {
        static $name: Struct = Struct {
            fields: &[PCM[0], PCM[1], PCM[2], PCM[3], PCM[4], PCM[5], PCM[6], $($more),*],
            tag: None,
        };
    };
}
per_direction!(AUDIO_PLAIN,);
per_direction!(AUDIO_ALSA, opt("dev", Str), opt("period-length", int(&U32)), opt("try-poll", Bool));
per_direction!(AUDIO_OSS, opt("dev", Str), opt("buffer-count", int(&U32)), opt("try-poll", Bool));
per_direction!(AUDIO_PA, opt("name", Str), opt("stream-name", Str), opt("latency", int(&U32)));
per_direction!(AUDIO_COUNTED, opt("buffer-count", int(&U32)));
per_direction!(
    AUDIO_JACK,
    opt("server-name", Str),
    opt("client-name", Str),
    opt("connect-ports", Str),
    opt("start-server", Bool),
    opt("exact-name", Bool)
);

const fn both(s: &'static Struct) -> [Field; 2] {
    [opt("in", Kind::Struct(s)), opt("out", Kind::Struct(s))]
}

const PLAIN: [Field; 2] = both(&AUDIO_PLAIN);
const ALSA: [Field; 2] = both(&AUDIO_ALSA);
const OSS: [Field; 2] = both(&AUDIO_OSS);
const PA: [Field; 2] = both(&AUDIO_PA);
const COUNTED: [Field; 2] = both(&AUDIO_COUNTED);
const JACK: [Field; 2] = both(&AUDIO_JACK);

/// `Audiodev`.
pub static AUDIODEV: Struct = Struct {
    fields: &[
        need("id", Str),
        need(
            "driver",
            Kind::Enum(&[
                "none",
                "alsa",
                "coreaudio",
                "dbus",
                "dsound",
                "jack",
                "oss",
                "pa",
                "sdl",
                "sndio",
                "spice",
                "wav",
            ]),
        ),
        opt("timer-period", int(&U32)),
    ],
    tag: Some(&Tag {
        name: "driver",
        branches: &[
            ("none", &PLAIN),
            ("alsa", &[ALSA[0], ALSA[1], opt("threshold", int(&U32))]),
            ("coreaudio", &COUNTED),
            ("dbus", &PLAIN),
            ("dsound", &[PLAIN[0], PLAIN[1], opt("latency", int(&U32))]),
            ("jack", &JACK),
            (
                "oss",
                &[
                    OSS[0],
                    OSS[1],
                    opt("try-mmap", Bool),
                    opt("exclusive", Bool),
                    opt("dsp-policy", int(&U32)),
                ],
            ),
            ("pa", &[PA[0], PA[1], opt("server", Str)]),
            ("sdl", &COUNTED),
            ("sndio", &[PLAIN[0], PLAIN[1], opt("dev", Str), opt("latency", int(&U32))]),
            ("spice", &PLAIN),
            ("wav", &[PLAIN[0], PLAIN[1], opt("path", Str)]),
        ],
    }),
};
