//! Firmware, direct kernel boot, boot order, fw_cfg, SMBIOS and ACPI additions, clock.

use super::loc::Loc;

/// `-kernel`, `-initrd`, `-append`, `-dtb`, `-bios`, `-option-rom`, `-L`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FirmwareSpec {
    /// Kernel file.
    pub kernel: Option<String>,
    /// Initial ramdisk (multiboot: a list of modules).
    pub initrd: Option<String>,
    /// Kernel command line.
    pub append: Option<String>,
    /// Device tree.
    pub dtb: Option<String>,
    /// `-bios` / `-machine firmware=`.
    pub bios: Option<String>,
    /// Option ROMs in order.
    pub option_roms: Vec<OptionRomSpec>,
    /// `-L` directories in order; `help` never gets here.
    pub data_dirs: Vec<String>,
}

/// `-option-rom`.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionRomSpec {
    /// File.
    pub romfile: String,
    /// Boot priority.
    pub bootindex: Option<i32>,
    /// Error prefix.
    pub loc: Loc,
}

/// `-boot`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootSpec {
    /// Letters `a`..`p` in order of trial; `None` = the machine's (`cad`).
    pub order: Option<String>,
    /// Letters for the first boot only.
    pub once: Option<String>,
    /// Boot menu.
    pub menu: Option<bool>,
    /// Picture file.
    pub splash: Option<String>,
    /// Milliseconds, 0..=65535.
    pub splash_time: Option<i64>,
    /// Milliseconds before a failed boot restarts, -1..=65535.
    pub reboot_timeout: Option<i64>,
    /// Boot from nothing but the listed devices.
    pub strict: Option<bool>,
}

/// `-fw_cfg`.
#[derive(Clone, Debug, PartialEq)]
pub struct FwCfgSpec {
    /// Item name; 1 to 55 bytes.
    pub name: String,
    /// Where the contents are.
    pub source: FwCfgSource,
    /// Error prefix.
    pub loc: Loc,
}

/// Contents of a fw_cfg item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FwCfgSource {
    /// A file read at start.
    File(String),
    /// This text, without a terminating zero.
    Text(String),
    /// An object that generates data.
    GenId(String),
}

/// `-rtc`. `driftfix=slew` is lowered to the global value `mc146818rtc.lost_tick_policy=slew`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtcSpec {
    /// Start time.
    pub base: RtcBase,
    /// What drives it.
    pub clock: RtcClock,
}

/// `-rtc base=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcBase {
    /// Host's UTC.
    #[default]
    Utc,
    /// Host's local time.
    Localtime,
    /// Seconds since 1970-01-01T00:00:00Z.
    At(i64),
}

/// `-rtc clock=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcClock {
    /// The host's wall clock.
    #[default]
    Host,
    /// Monotonic host time.
    Rt,
    /// Guest time: stands while the VM is stopped.
    Vm,
}
