//! What `-object` and `object-add` take, by type.

use crate::spec::schema::Kind::{self, Bool, Size, Str};
use crate::spec::schema::{Field, Struct};
use crate::spec::visit::Int;

static I64: Int = Int { name: "int64", min: i64::MIN, max: i64::MAX as u64 };
static U32: Int = Int { name: "uint32_t", min: 0, max: u32::MAX as u64 };
static U16: Int = Int { name: "uint16_t", min: 0, max: u16::MAX as u64 };
static U16_KIND: Kind = Kind::Int(&U16);

const fn opt(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

const fn need(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

/// No options.
pub static NOTHING: Struct = Struct { fields: &[], tag: None };

/// `iothread`.
pub static IOTHREAD: Struct = Struct {
    fields: &[
        opt("aio-max-batch", Kind::Int(&I64)),
        opt("thread-pool-min", Kind::Int(&I64)),
        opt("thread-pool-max", Kind::Int(&I64)),
        opt("poll-max-ns", Kind::Int(&I64)),
        opt("poll-grow", Kind::Int(&I64)),
        opt("poll-shrink", Kind::Int(&I64)),
    ],
    tag: None,
};

macro_rules! memory {
    ($name:ident, $($more:expr),*) => {
        /// Memory backend.
        pub static $name: Struct = Struct {
            fields: &[
                opt("dump", Bool),
                opt("host-nodes", Kind::List(&U16_KIND)),
                opt("merge", Bool),
                opt("policy", Kind::Enum(&["default", "preferred", "bind", "interleave"])),
                opt("prealloc", Bool),
                opt("prealloc-threads", Kind::Int(&U32)),
                opt("prealloc-context", Str),
                opt("share", Bool),
                opt("reserve", Bool),
                need("size", Size),
                opt("x-use-canonical-path-for-ramblock-id", Bool),
                $($more),*
            ],
            tag: None,
        };
    };
}

memory!(MEMORY_RAM,);
memory!(
    MEMORY_FILE,
    opt("align", Size),
    opt("discard-data", Bool),
    need("mem-path", Str),
    opt("pmem", Bool),
    opt("readonly", Bool)
);
memory!(MEMORY_MEMFD, opt("hugetlb", Bool), opt("hugetlbsize", Size), opt("seal", Bool));

/// `rng-random`.
pub static RNG_RANDOM: Struct = Struct { fields: &[opt("filename", Str)], tag: None };

/// `secret`.
pub static SECRET: Struct = Struct {
    fields: &[
        opt("format", Kind::Enum(&["raw", "base64"])),
        opt("keyid", Str),
        opt("iv", Str),
        opt("data", Str),
        opt("file", Str),
    ],
    tag: None,
};
