//! Block nodes (`-blockdev`) and the older `-drive`, which also describes where the drive is plugged in.

use super::loc::Loc;
use super::value::Dict;
use crate::error::QResult;
use crate::qerr;

/// `-blockdev` / `blockdev-add`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockdevSpec {
    /// QAPI `BlockdevOptions`, nested, with `driver` and `node-name`.
    pub options: Dict,
    /// Error prefix.
    pub loc: Loc,
}

/// Kind of bus that a drive goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveInterface {
    /// Backend only, for a `-device`.
    None,
    /// IDE.
    Ide,
    /// SCSI.
    Scsi,
    /// Floppy.
    Floppy,
    /// Parallel flash.
    Pflash,
    /// On-board flash.
    Mtd,
    /// SD card.
    Sd,
    /// virtio-blk.
    Virtio,
    /// Xen.
    Xen,
}

impl DriveInterface {
    /// Name as in `if=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ide => "ide",
            Self::Scsi => "scsi",
            Self::Floppy => "floppy",
            Self::Pflash => "pflash",
            Self::Mtd => "mtd",
            Self::Sd => "sd",
            Self::Virtio => "virtio",
            Self::Xen => "xen",
        }
    }

    /// Units on one bus; 0 = no limit (the index is the unit).
    pub fn max_devs(self) -> u32 {
        match self {
            Self::Ide => 2,
            Self::Scsi => 7,
            _ => 0,
        }
    }
}

/// Disk or CD-ROM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// `media=disk`.
    #[default]
    Disk,
    /// `media=cdrom`: also makes the drive read-only.
    Cdrom,
}

/// What happens to a guest's request that failed on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Reads: report; writes: stop when the disk is full, report otherwise.
    #[default]
    Auto,
    /// Pretend that it worked.
    Ignore,
    /// Tell the guest.
    Report,
    /// Stop the VM.
    Stop,
    /// Stop on ENOSPC, report otherwise (writes only).
    Enospc,
}

/// `-drive` and its short forms (`-hda`, `-cdrom`, `-fda`, `-pflash`, `-sd`, `-mtdblock`, bare image).
#[derive(Clone, Debug, PartialEq)]
pub struct DriveSpec {
    /// `id=`; without one [`place_drives`](super::place::place_drives) makes up `ide0-hd0`, `floppy0` and so on.
    pub id: Option<String>,
    /// `if=`; `None` = the machine's default (IDE on pc).
    pub interface: Option<DriveInterface>,
    /// Bus number.
    pub bus: Option<u32>,
    /// Unit on the bus.
    pub unit: Option<u32>,
    /// Running number over all buses; excludes `bus` and `unit`.
    pub index: Option<u32>,
    /// Disk or CD-ROM.
    pub media: Media,
    /// Image file or protocol URL; `None` or empty = no medium.
    pub file: Option<String>,
    /// `read-only`/`readonly`, or a CD-ROM.
    pub read_only: bool,
    /// Write into a temporary overlay (`snapshot=on` or `-snapshot`).
    pub snapshot: bool,
    /// Populate the image from its backing file on reads.
    pub copy_on_read: bool,
    /// Read errors.
    pub rerror: OnError,
    /// Write errors.
    pub werror: OnError,
    /// Write cache as the guest sees it (`cache.writeback`); default true.
    pub writeback: bool,
    /// I/O accounting: count invalid requests.
    pub account_invalid: Option<bool>,
    /// I/O accounting: count failed requests.
    pub account_failed: Option<bool>,
    /// Limits, if any is set.
    pub throttle: ThrottleSpec,
    /// Options of the root block node in QAPI names: `driver` (from `format=`), `cache.direct`, `cache.no-flush`,
    /// `discard`, `detect-zeroes`, `aio`, `node-name`, `file.…` and the rest, flat, as text.
    pub options: Dict,
    /// Error prefix.
    pub loc: Loc,
}

/// `throttling.*` (and the old `bps=`…).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThrottleSpec {
    /// `throttling.group`.
    pub group: Option<String>,
    /// `(name, value)` such as `("bps-total", 1000)`, in order, without the `throttling.` prefix.
    pub limits: Vec<(String, u64)>,
}

/// Largest limit of any kind.
const MAX_LIMIT: u64 = 1_000_000_000_000_000;

impl ThrottleSpec {
    /// A limit; 0 = none.
    pub fn limit(&self, name: &str) -> u64 {
        self.limits.iter().rev().find(|(k, _)| k == name).map_or(0, |(_, v)| *v)
    }

    /// Limits that exclude or need each other.
    pub fn check(&self) -> QResult<()> {
        let set = |name: String| self.limit(&name) != 0;
        for unit in ["bps", "iops"] {
            for max in ["", "-max"] {
                let key = |direction: &str| format!("{unit}-{direction}{max}");
                if set(key("total")) && (set(key("read")) || set(key("write"))) {
                    return Err(qerr!(
                        "bps/iops/max total values and read/write values cannot be used at the same time"
                    ));
                }
            }
        }
        if self.limit("iops-size") != 0
            && !["total", "read", "write"].iter().any(|d| set(format!("iops-{d}")))
        {
            return Err(qerr!("iops size requires an iops value to be set"));
        }
        for unit in ["bps", "iops"] {
            for direction in ["total", "read", "write"] {
                self.check_one(&format!("{unit}-{direction}"))?;
            }
        }
        Ok(())
    }

    fn check_one(&self, name: &str) -> QResult<()> {
        let (average, max) = (self.limit(name), self.limit(&format!("{name}-max")));
        if average > MAX_LIMIT || max > MAX_LIMIT {
            return Err(qerr!("bps/iops/max values must be within [0, {MAX_LIMIT}]"));
        }
        let length = format!("{name}-max-length");
        if let Some((_, value)) = self.limits.iter().rev().find(|(k, _)| *k == length) {
            match value {
                0 => return Err(qerr!("the burst length cannot be 0")),
                1 => {}
                _ if max == 0 => return Err(qerr!("burst length set without burst rate")),
                _ => {}
            }
        }
        if max != 0 && average == 0 {
            return Err(qerr!("bps_max/iops_max require corresponding bps/iops values"));
        }
        if max != 0 && max < average {
            return Err(qerr!("bps_max/iops_max cannot be lower than bps/iops"));
        }
        Ok(())
    }
}

impl Default for DriveSpec {
    fn default() -> Self {
        Self {
            id: None,
            interface: None,
            bus: None,
            unit: None,
            index: None,
            media: Media::Disk,
            file: None,
            read_only: false,
            snapshot: false,
            copy_on_read: false,
            rerror: OnError::Auto,
            werror: OnError::Auto,
            writeback: true,
            account_invalid: None,
            account_failed: None,
            throttle: ThrottleSpec::default(),
            options: Dict::new(),
            loc: Loc::NONE,
        }
    }
}
