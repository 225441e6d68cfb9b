//! The registry: classes, properties and how values reach them.
//!
//! A class is described once, by a properties struct with `#[derive(Device)]` (see `rqemu-derive`); help texts,
//! introspection, `-global`, `info qtree` and QMP's `qom-*` commands all read that record. Value precedence is
//! class default < machine-version compat < accelerator compat < `-global` < the instance's own.

mod classes;
mod value;

pub use classes::{class_by_name, classes, is_a, resolve_device_class, ALL_CLASSES};
pub use value::*;

use crate::device::{BusKind, Device, RealizeCx};
use crate::{QError, QResult};

/// Category of a device in `-device help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Controllers, bridges, hubs.
    Bridge,
    /// USB controllers.
    Usb,
    /// Block devices and controllers.
    Storage,
    /// Network cards.
    Network,
    /// Keyboards, mice, serial ports.
    Input,
    /// Graphics.
    Display,
    /// Sound.
    Sound,
    /// Everything with a name but no category.
    Misc,
    /// CPUs.
    Cpu,
    /// Watchdogs.
    Watchdog,
    /// No category.
    Uncategorized,
}

impl Category {
    /// Heading in `-device help`.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Bridge => "Controller/Bridge/Hub",
            Self::Usb => "USB",
            Self::Storage => "Storage",
            Self::Network => "Network",
            Self::Input => "Input",
            Self::Display => "Display",
            Self::Sound => "Sound",
            Self::Misc => "Misc",
            Self::Cpu => "CPU",
            Self::Watchdog => "Watchdog",
            Self::Uncategorized => "Uncategorized",
        }
    }
}

/// One property of a class.
pub struct PropInfo {
    /// Name as users write it.
    pub name: &'static str,
    /// Type name as introspection shows it (`uint32`, `str`, `OnOffAuto`, ...).
    pub ty: &'static str,
    /// One-line description, may be empty.
    pub desc: &'static str,
    /// Shown by `info qtree` (`false`: forwarded to a child object in QEMU).
    pub qdev: bool,
    /// Default value, if it has one that is shown.
    pub default: fn() -> Option<serde_json::Value>,
}

/// A class's own properties and those of the base struct it embeds.
pub struct PropTable {
    /// Own properties in declaration order.
    pub own: &'static [PropInfo],
    /// The embedded base's table.
    pub base: Option<&'static PropTable>,
}

impl PropTable {
    /// Own properties, then the base's, and so on up.
    pub fn iter(&'static self) -> impl Iterator<Item = &'static PropInfo> {
        let mut table = Some(self);
        std::iter::from_fn(move || {
            let t = table?;
            table = t.base;
            Some(t.own)
        })
        .flatten()
    }

    /// Looks a property up by name.
    pub fn find(&'static self, name: &str) -> Option<&'static PropInfo> {
        self.iter().find(|p| p.name == name)
    }
}

/// A class without properties.
pub static NO_PROPS: PropTable = PropTable { own: &[], base: None };

/// A property's current value in both notations.
pub struct PropGet {
    /// As `qom-get` returns it.
    pub value: serde_json::Value,
    /// As `info qtree` prints it.
    pub text: String,
}

/// A struct with a static property table (implemented by the derive).
pub trait PropStruct {
    /// The table.
    const PROPS: &'static PropTable;
}

/// Get and set by name (implemented by the derive).
pub trait PropAccess: Send {
    /// Sets `name`; `Ok(false)` if there is no such property. `owner` is the class name for messages.
    fn set_prop(&mut self, owner: &str, name: &str, input: &PropInput<'_>) -> QResult<bool>;
    /// Reads `name`.
    fn get_prop(&self, name: &str) -> Option<PropGet>;
}

/// A type with a class record (implemented by the derive when the struct has a class name).
pub trait Classed {
    /// The record.
    const CLASS: &'static ClassInfo;
}

/// What a device class adds to its properties: how it comes to life.
///
/// `realize` checks the properties, claims regions, lines and backends through the context, and returns the
/// run-time device. It may be called once per instance. On error it must leave nothing behind (the context undoes
/// regions, lines and timers that it handed out).
pub trait DeviceClass: PropAccess {
    /// Brings the device to life.
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>>;
}

/// Record of one class in the registry.
pub struct ClassInfo {
    /// Type name.
    pub name: &'static str,
    /// Parent type name; `None` for roots.
    pub parent: Option<&'static str>,
    /// Cannot be instantiated.
    pub is_abstract: bool,
    /// One-line description for help lists, may be empty.
    pub desc: &'static str,
    /// Heading in `-device help`.
    pub category: Category,
    /// Kind of bus it plugs into.
    pub bus: Option<BusKind>,
    /// Other names accepted by `-device`.
    pub aliases: &'static [&'static str],
    /// May be created with `-device`/`device_add`.
    pub user_creatable: bool,
    /// May be plugged and unplugged while the machine runs.
    pub hotpluggable: bool,
    /// Properties.
    pub props: &'static PropTable,
    /// Children and links that help and introspection list, as (name, type); they cannot be set.
    pub extra: &'static [(&'static str, &'static str)],
    /// Makes an instance with default values.
    pub create: Option<fn() -> Box<dyn DeviceClass>>,
}

impl ClassInfo {
    /// A class that exists for introspection and inheritance only.
    pub const fn abstract_(name: &'static str, parent: Option<&'static str>) -> Self {
        Self {
            name,
            parent,
            is_abstract: true,
            desc: "",
            category: Category::Uncategorized,
            bus: None,
            aliases: &[],
            user_creatable: false,
            hotpluggable: false,
            props: &NO_PROPS,
            extra: &[],
            create: None,
        }
    }
}

/// Sets one property, with the error that users know for unknown names.
pub fn set_prop(
    class: &ClassInfo,
    props: &mut dyn DeviceClass,
    name: &str,
    input: &PropInput<'_>,
) -> QResult<()> {
    if props.set_prop(class.name, name, input)? {
        Ok(())
    } else {
        Err(QError::generic(format!("Property '{}.{name}' not found", class.name)))
    }
}
