//! Bus, unit and name of drives.

use std::collections::HashSet;

use super::block::{DriveInterface, DriveSpec, Media};
use super::defaults::MachineDefaults;
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

/// Gives each drive its place, in order, up to the first that has none; the result has one entry a drive.
///
/// Errors: `index` together with `bus`/`unit`, unit out of range, a place used twice, a made-up id that exists.
pub fn place_drives(drives: &[DriveSpec], machine: &MachineDefaults) -> (Vec<DrivePlace>, QResult<()>) {
    let mut placer = Placer::new(machine);
    let mut places = Vec::with_capacity(drives.len());
    for d in drives {
        match placer.place(d) {
            Ok(place) => places.push(place),
            Err(e) => return (places, Err(d.loc.locate(e))),
        }
    }
    (places, Ok(()))
}

/// True when a drive with this index is among `drives`, so that a default drive is not wanted. Drives that cannot
/// be placed count as absent: the builder reports them.
pub(super) fn taken(
    drives: &[DriveSpec],
    machine: &MachineDefaults,
    interface: DriveInterface,
    index: u32,
) -> bool {
    let mut placer = Placer::new(machine);
    for drive in drives {
        // An error is reported later, with its location, by `place_drives`.
        let _ = placer.place(drive);
    }
    let (bus, unit) = split_index(index, placer.max_devs(interface));
    placer.used.contains(&(interface.as_str(), bus, unit))
}

struct Placer<'a> {
    machine: &'a MachineDefaults,
    used: HashSet<(&'static str, u32, u32)>,
    ids: HashSet<String>,
}

impl<'a> Placer<'a> {
    fn new(machine: &'a MachineDefaults) -> Self {
        Self { machine, used: HashSet::new(), ids: HashSet::new() }
    }

    /// Units on one bus, 0 = one endless bus; a machine may say otherwise for its default interface.
    fn max_devs(&self, interface: DriveInterface) -> u32 {
        match self.machine.units_per_default_bus {
            n if n != 0 && interface == self.machine.drive_interface => n,
            _ => interface.max_devs(),
        }
    }

    fn place(&mut self, drive: &DriveSpec) -> QResult<DrivePlace> {
        let interface = drive.interface.unwrap_or(self.machine.drive_interface);
        let max = self.max_devs(interface);
        let mut bus = drive.bus.unwrap_or(0);
        let mut unit = drive.unit;
        if let Some(index) = drive.index {
            if bus != 0 || unit.is_some() {
                return Err(qerr!("index cannot be used with bus and unit"));
            }
            let (b, u) = split_index(index, max);
            (bus, unit) = (b, Some(u));
        }
        let (bus, unit) = match unit {
            Some(unit) => (bus, unit),
            None => self.first_free(interface, bus, max),
        };
        if max != 0 && unit >= max {
            return Err(qerr!("unit {unit} too big (max is {})", max - 1));
        }
        if !self.used.insert((interface.as_str(), bus, unit)) {
            let index = drive.index.map_or(-1, i64::from);
            return Err(qerr!("drive with bus={bus}, unit={unit} (index={index}) exists"));
        }
        let id = drive.id.clone().unwrap_or_else(|| auto_id(interface, bus, unit, drive.media, max));
        if !self.ids.insert(id.clone()) {
            return Err(qerr!("Device with id '{id}' already exists"));
        }
        Ok(DrivePlace { id, interface, bus, unit })
    }

    fn first_free(&self, interface: DriveInterface, bus: u32, max: u32) -> (u32, u32) {
        let (mut bus, mut unit) = (bus, 0);
        while self.used.contains(&(interface.as_str(), bus, unit)) {
            unit += 1;
            if max != 0 && unit >= max {
                unit = 0;
                bus = bus.saturating_add(1);
            }
        }
        (bus, unit)
    }
}

/// Bus and unit of an index.
fn split_index(index: u32, max_devs: u32) -> (u32, u32) {
    match max_devs {
        0 => (0, index),
        n => (index / n, index % n),
    }
}

fn auto_id(interface: DriveInterface, bus: u32, unit: u32, media: Media, max_devs: u32) -> String {
    let kind = match (interface, media) {
        (DriveInterface::Ide | DriveInterface::Scsi, Media::Cdrom) => "-cd",
        (DriveInterface::Ide | DriveInterface::Scsi, Media::Disk) => "-hd",
        _ => "",
    };
    match max_devs {
        0 => format!("{}{kind}{unit}", interface.as_str()),
        _ => format!("{}{bus}{kind}{unit}", interface.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(interface: Option<DriveInterface>, media: Media) -> DriveSpec {
        DriveSpec { interface, media, ..DriveSpec::default() }
    }

    fn ids(drives: &[DriveSpec], machine: &MachineDefaults) -> Result<Vec<String>, String> {
        let (places, placed) = place_drives(drives, machine);
        placed.map(|()| places.into_iter().map(|p| p.id).collect()).map_err(|e| e.desc)
    }

    #[test]
    fn names_follow_the_place() {
        use DriveInterface as I;
        let pc = MachineDefaults::default();
        let list = [
            drive(Some(I::Virtio), Media::Disk),
            DriveSpec { index: Some(1), ..drive(None, Media::Cdrom) },
            drive(Some(I::Ide), Media::Cdrom),
            drive(None, Media::Disk),
            drive(Some(I::None), Media::Cdrom),
            drive(Some(I::Scsi), Media::Disk),
        ];
        let expected = ["virtio0", "ide0-cd1", "ide0-cd0", "ide1-hd0", "none0", "scsi0-hd0"];
        assert_eq!(ids(&list, &pc).unwrap(), expected);
        let q35 = MachineDefaults { units_per_default_bus: 1, ..pc };
        let cd = DriveSpec { index: Some(2), ..drive(None, Media::Cdrom) };
        assert_eq!(ids(std::slice::from_ref(&cd), &q35).unwrap(), ["ide2-cd0"]);
        let microvm = MachineDefaults { drive_interface: I::None, ..q35 };
        assert_eq!(ids(&[cd], &microvm).unwrap(), ["none20"]);
    }

    #[test]
    fn refusals() {
        let pc = MachineDefaults::default();
        let at = |index, bus, unit| DriveSpec { index, bus, unit, ..DriveSpec::default() };
        let err = |list: &[DriveSpec]| ids(list, &pc).unwrap_err();
        assert_eq!(err(&[at(Some(1), Some(2), None)]), "index cannot be used with bus and unit");
        assert_eq!(err(&[at(None, None, Some(2))]), "unit 2 too big (max is 1)");
        let one = at(Some(1), None, None);
        assert_eq!(err(&[one.clone(), one]), "drive with bus=0, unit=1 (index=1) exists");
        let zero = at(None, None, Some(0));
        assert_eq!(err(&[zero.clone(), zero]), "drive with bus=0, unit=0 (index=-1) exists");
        let none = |bus| DriveSpec { interface: Some(DriveInterface::None), bus, ..DriveSpec::default() };
        assert_eq!(err(&[none(Some(1)), none(None)]), "Device with id 'none0' already exists");
    }
}
