//! What storage devices have in common: properties of a drive, access to the machine's block graph, and what to do
//! about failed requests.

use rqemu_block::{Attach, BlockBackend, Errno, ErrorAction, OnError};

use super::geometry::Chs;
use crate::device::{Cx, RealizeCx};
use crate::qom::{OnOffAuto, PropInput, PropValue, Size32};
use crate::run::RunState;
use crate::{qerr, QResult};

/// Error policy of a device (`rerror`, `werror`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorPolicy {
    #[default]
    Auto,
    Report,
    Ignore,
    Enospc,
    Stop,
}

crate::enum_prop!(ErrorPolicy, "BlockdevOnError",
    "report" => ErrorPolicy::Report, "ignore" => ErrorPolicy::Ignore, "enospc" => ErrorPolicy::Enospc,
    "stop" => ErrorPolicy::Stop, "auto" => ErrorPolicy::Auto);

/// A block size: 0 for the default, or a power of two between 512 B and 2 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockSize(pub u32);

impl PropValue for BlockSize {
    const TYPE: &'static str = "size";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let v = crate::qom::Size::from_input(owner, name, input)?.0;
        if v != 0 && !(512..=2 << 20).contains(&v) {
            return Err(qerr!("Property .{name} doesn't take value {v} (minimum: 512, maximum: 2097152)"));
        }
        if v != 0 && !v.is_power_of_two() {
            return Err(qerr!("Property .{name} doesn't take value '{v}', it's not a power of 2"));
        }
        Ok(Self(v as u32))
    }
    fn to_value(&self) -> serde_json::Value {
        serde_json::Value::from(self.0)
    }
    fn to_qtree(&self) -> String {
        Size32(self.0).to_qtree()
    }
}

/// Boot order of a device: -1 when it has none. Shown in help, not in `info qtree` (its text is empty).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootIndex(pub i32);

impl Default for BootIndex {
    fn default() -> Self {
        Self(-1)
    }
}

impl PropValue for BootIndex {
    const TYPE: &'static str = "int32";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        i32::from_input(owner, name, input).map(Self)
    }
    fn to_value(&self) -> serde_json::Value {
        serde_json::Value::from(self.0)
    }
    fn to_qtree(&self) -> String {
        String::new()
    }
    fn default_value(&self) -> Option<serde_json::Value> {
        None
    }
}

/// Declares a device's properties struct that begins with the block properties all disks have.
#[macro_export]
macro_rules! block_device_props {
    (
        $(#[$m:meta])* pub struct $name:ident {
            before { $($(#[$bm:meta])* pub $bf:ident : $bt:ty,)* }
            after { $($(#[$fm:meta])* pub $f:ident : $t:ty,)* }
        }
    ) => {
        $(#[$m])*
        pub struct $name {
            $($(#[$bm])* pub $bf: $bt,)*
            /// Node name or ID of a block device to use as a backend
            #[prop]
            pub drive: $crate::qom::DriveRef,
            /// Take block sizes and limits from the backend
            #[prop(name = "backend_defaults")]
            pub backend_defaults: $crate::qom::OnOffAuto,
            /// A power of two between 512 B and 2 MiB
            #[prop(name = "logical_block_size")]
            pub logical_block_size: $crate::devices::storage::blk::BlockSize,
            /// A power of two between 512 B and 2 MiB
            #[prop(name = "physical_block_size")]
            pub physical_block_size: $crate::devices::storage::blk::BlockSize,
            /// Preferred minimum transfer
            #[prop(name = "min_io_size")]
            pub min_io_size: $crate::qom::Size32,
            /// Preferred transfer
            #[prop(name = "opt_io_size")]
            pub opt_io_size: $crate::qom::Size32,
            /// Smallest range that can be discarded
            #[prop(name = "discard_granularity", default = u32::MAX)]
            pub discard_granularity: $crate::qom::Size32,
            /// Volatile write cache of the disk
            #[prop]
            pub write_cache: $crate::qom::OnOffAuto,
            /// Let others write to the image too
            #[prop]
            pub share_rw: bool,
            /// Count invalid requests in the statistics
            #[prop]
            pub account_invalid: $crate::qom::OnOffAuto,
            /// Count failed requests in the statistics
            #[prop]
            pub account_failed: $crate::qom::OnOffAuto,
            $($(#[$fm])* pub $f: $t,)*
        }
    };
}

/// Whether a request reads or writes, for the error policy and its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the medium.
    Read,
    /// To the medium.
    Write,
}

/// A drive as a storage device uses it.
pub struct Disk {
    /// The block layer's side.
    pub backend: BlockBackend,
    /// Read error policy.
    pub rerror: ErrorPolicy,
    /// Write error policy.
    pub werror: ErrorPolicy,
    /// Device id or QOM path, for events.
    pub who: String,
}

impl Disk {
    /// Size in 512-byte sectors.
    pub fn sectors(&self) -> u64 {
        self.backend.len() / 512
    }

    /// Decides about a failed request: emits `BLOCK_IO_ERROR`, asks the machine to stop if the policy says so.
    pub fn failed(&self, cx: &mut Cx<'_>, dir: Direction, error: Errno) -> ErrorAction {
        let read = dir == Direction::Read;
        let own = match if read { self.rerror } else { self.werror } {
            ErrorPolicy::Auto => None,
            ErrorPolicy::Report => Some(OnError::Report),
            ErrorPolicy::Ignore => Some(OnError::Ignore),
            ErrorPolicy::Enospc => Some(OnError::Enospc),
            ErrorPolicy::Stop => Some(OnError::Stop),
        };
        let action = match own {
            None => self.backend.error_action(read, error),
            Some(OnError::Ignore) => ErrorAction::Ignore,
            Some(OnError::Stop) => ErrorAction::Stop,
            Some(OnError::Enospc) if error == Errno::ENOSPC => ErrorAction::Stop,
            Some(_) => ErrorAction::Report,
        };
        let node = self.backend.root().map(|n| n.name().to_string());
        let mut data = serde_json::json!({
            "device": self.backend.name(),
            "operation": if read { "read" } else { "write" },
            "action": match action {
                ErrorAction::Ignore => "ignore",
                ErrorAction::Report => "report",
                ErrorAction::Stop => "stop",
            },
            "nospace": error == Errno::ENOSPC,
            "reason": error.to_string(),
        });
        if let (Some(node), Some(map)) = (node, data.as_object_mut()) {
            map.insert("node-name".into(), node.into());
        }
        cx.event("BLOCK_IO_ERROR", Some(data));
        if action == ErrorAction::Stop {
            self.backend.set_io_status(error);
            cx.m.run.request_stop(RunState::IoError);
        }
        action
    }

    /// Emits `DEVICE_TRAY_MOVED`.
    pub fn tray_moved(&self, cx: &mut Cx<'_>, open: bool) {
        let data = serde_json::json!({
            "device": self.backend.name(), "id": self.who, "tray-open": open,
        });
        cx.event("DEVICE_TRAY_MOVED", Some(data));
    }
}

/// Finds the backend that `drive=` of the device being realized names.
///
/// # Errors
/// There is none of that name.
pub fn resolve(cx: &mut RealizeCx<'_>, drive: &crate::qom::DriveRef) -> QResult<Option<BlockBackend>> {
    let dev = cx.id();
    let class = cx.m().tree.get(dev).map_or("", |n| n.class.name);
    resolve_for(cx, class, drive)
}

/// As [`resolve`], for the part `class` of a device.
///
/// # Errors
/// There is none of that name.
pub fn resolve_for(
    cx: &mut RealizeCx<'_>,
    class: &str,
    drive: &crate::qom::DriveRef,
) -> QResult<Option<BlockBackend>> {
    let Some(name) = drive.0.as_deref() else { return Ok(None) };
    let found = cx.m().block.backend_for(name);
    found.map(Some).map_err(|_| qerr!("Property '{class}.drive' can't find value '{name}'"))
}

/// Id or QOM path of the device being realized, as events and error texts name it.
pub fn device_name(cx: &mut RealizeCx<'_>) -> String {
    let dev = cx.id();
    let tree = &cx.m().tree;
    tree.get(dev).and_then(|n| n.user_id().map(str::to_string)).unwrap_or_else(|| tree.path(dev))
}

/// Takes the drive for a device.
pub fn attach(backend: &BlockBackend, who: &str, how: Attach) -> QResult<()> {
    backend.attach(who, how).map_err(|e| qerr!("{e}"))
}

/// Fills in default block sizes.
pub fn default_block_sizes(logical: &mut BlockSize, physical: &mut BlockSize) -> QResult<()> {
    for b in [&mut *logical, &mut *physical] {
        if b.0 == 0 {
            b.0 = 512;
        }
    }
    if logical.0 > physical.0 {
        return Err(qerr!("logical_block_size > physical_block_size not supported"));
    }
    Ok(())
}

/// Applies `write-cache`.
pub fn write_cache(backend: &BlockBackend, wish: OnOffAuto) {
    match wish {
        OnOffAuto::Auto => {}
        OnOffAuto::On => backend.enable_write_cache(true),
        OnOffAuto::Off => backend.enable_write_cache(false),
    }
}

/// Checks a geometry that the user gave (all zero: none).
pub fn check_geometry(g: Chs) -> QResult<()> {
    let range = |what: &str, v: u32, max: u32| {
        if (1..=max).contains(&v) {
            Ok(())
        } else {
            Err(qerr!("{what} must be between 1 and {max}"))
        }
    };
    range("cyls", g.cyls, 65535)?;
    range("heads", g.heads, 16)?;
    range("secs", g.secs, 255)
}
