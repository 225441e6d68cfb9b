//! Bus, unit and name of drives.

use std::collections::HashSet;

use super::block::{DriveInterface, DriveSpec, Media};
use crate::error::QResult;
use crate::qerr;

/// Where a drive ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrivePlace {
    /// The user's id, or one made of interface, bus, media and unit (`ide1-cd0`).
    pub id: String,
    /// Interface, the machine's default resolved.
    pub interface: DriveInterface,
    /// Bus number.
    pub bus: u32,
    /// Unit on the bus.
    pub unit: u32,
}

/// Gives each drive its place, in order; the result has one entry a drive.
///
/// `default_interface` stands for a missing `if=`; `default` drives (those without an error location) whose place
/// is taken are skipped by the caller: see [`taken`].
/// Errors: `index` together with `bus`/`unit`, unit out of range, a place used twice, an id used twice.
pub fn place_drives(drives: &[DriveSpec], default_interface: DriveInterface) -> QResult<Vec<DrivePlace>> {
    let mut used = HashSet::new();
    let mut ids = HashSet::new();
    let mut out = Vec::with_capacity(drives.len());
    for drive in drives {
        let place = place_one(drive, default_interface, &used).map_err(|e| drive.loc.locate(e))?;
        if place.interface != DriveInterface::None {
            used.insert((place.interface.as_str(), place.bus, place.unit));
        }
        if !ids.insert(place.id.clone()) {
            let err = qerr!("Device with id '{}' already exists", place.id);
            return Err(drive.loc.locate(err));
        }
        out.push(place);
    }
    Ok(out)
}

type Used = HashSet<(&'static str, u32, u32)>;

fn place_one(drive: &DriveSpec, default_interface: DriveInterface, used: &Used) -> QResult<DrivePlace> {
    let interface = drive.interface.unwrap_or(default_interface);
    let max = interface.max_devs();
    let mut bus = drive.bus.unwrap_or(0);
    let mut unit = drive.unit;
    if let Some(index) = drive.index {
        if bus != 0 || unit.is_some() {
            return Err(qerr!("index cannot be used with bus and unit"));
        }
        (bus, unit) = split_index(index, max);
    }
    let unit = match unit {
        Some(unit) => unit,
        None => {
            // The first free place from the given bus on.
            let mut next = 0;
            while used.contains(&(interface.as_str(), bus, next)) {
                next += 1;
                if max != 0 && next >= max {
                    next = 0;
                    bus += 1;
                }
            }
            next
        }
    };
    if max != 0 && unit >= max {
        return Err(qerr!("unit {unit} too big (max is {})", max - 1));
    }
    if interface != DriveInterface::None && used.contains(&(interface.as_str(), bus, unit)) {
        let index = if max == 0 { unit } else { bus * max + unit };
        return Err(qerr!("drive with bus={bus}, unit={unit} (index={index}) exists"));
    }
    let id = drive.id.clone().unwrap_or_else(|| auto_id(interface, bus, unit, drive.media));
    Ok(DrivePlace { id, interface, bus, unit })
}

/// Bus and unit of an index.
fn split_index(index: u32, max_devs: u32) -> (u32, Option<u32>) {
    match max_devs {
        0 => (0, Some(index)),
        n => (index / n, Some(index % n)),
    }
}

fn auto_id(interface: DriveInterface, bus: u32, unit: u32, media: Media) -> String {
    let kind = match (interface, media) {
        (DriveInterface::Ide | DriveInterface::Scsi, Media::Cdrom) => "-cd",
        (DriveInterface::Ide | DriveInterface::Scsi, Media::Disk) => "-hd",
        _ => "",
    };
    match interface.max_devs() {
        0 => format!("{}{kind}{unit}", interface.as_str()),
        _ => format!("{}{bus}{kind}{unit}", interface.as_str()),
    }
}
