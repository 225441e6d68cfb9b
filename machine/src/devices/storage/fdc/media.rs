//! Floppy drives: types, media formats by size, head position.

use super::super::blk::Disk;

/// Type of a floppy drive (`fdtypeA`, `drive-type`, ...).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriveType {
    /// 3.5", 1.44 MB.
    D144,
    /// 3.5", 2.88 MB.
    D288,
    /// 5.25", 1.2 MB.
    D120,
    /// No drive.
    None,
    /// Chosen by the medium.
    #[default]
    Auto,
}

crate::enum_prop!(DriveType, "FdcDriveType",
    "144" => DriveType::D144, "288" => DriveType::D288, "120" => DriveType::D120,
    "none" => DriveType::None, "auto" => DriveType::Auto);

impl DriveType {
    /// Drive type as CMOS register 10h has it.
    pub fn cmos(self) -> u8 {
        match self {
            Self::D120 => 2,
            Self::D144 => 4,
            Self::D288 => 5,
            Self::None | Self::Auto => 0,
        }
    }

    /// Whether a drive of type `self` takes media of a drive of type `other`.
    fn takes(self, other: Self) -> bool {
        self == other || self == Self::Auto || (self == Self::D288 && other == Self::D144)
    }
}

/// Layout of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Drive it belongs to.
    pub drive: DriveType,
    /// Sectors per track.
    pub sectors: u8,
    /// Tracks.
    pub tracks: u8,
    /// Sides.
    pub sides: u8,
    /// Data rate code: 0 = 500, 1 = 300, 2 = 250, 3 = 1000 kbit/s.
    pub rate: u8,
}

const fn f(drive: DriveType, sectors: u8, tracks: u8, sides: u8, rate: u8) -> Format {
    Format { drive, sectors, tracks, sides, rate }
}

use DriveType::{D120, D144, D288};

/// Known formats; the first of a drive type is its default.
const FORMATS: &[Format] = &[
    f(D144, 18, 80, 2, 0),
    f(D144, 20, 80, 2, 0),
    f(D144, 21, 80, 2, 0),
    f(D144, 21, 82, 2, 0),
    f(D144, 21, 83, 2, 0),
    f(D144, 22, 80, 2, 0),
    f(D144, 23, 80, 2, 0),
    f(D144, 24, 80, 2, 0),
    f(D288, 36, 80, 2, 3),
    f(D288, 39, 80, 2, 3),
    f(D288, 40, 80, 2, 3),
    f(D288, 44, 80, 2, 3),
    f(D288, 48, 80, 2, 3),
    f(D144, 9, 80, 2, 2),
    f(D144, 10, 80, 2, 2),
    f(D144, 10, 82, 2, 2),
    f(D144, 10, 83, 2, 2),
    f(D144, 13, 80, 2, 2),
    f(D144, 14, 80, 2, 2),
    f(D120, 15, 80, 2, 0),
    f(D120, 18, 80, 2, 0),
    f(D120, 18, 82, 2, 0),
    f(D120, 18, 83, 2, 0),
    f(D120, 20, 80, 2, 0),
    f(D120, 9, 80, 2, 1),
    f(D120, 11, 80, 2, 1),
    f(D120, 9, 40, 2, 1),
    f(D120, 9, 40, 1, 1),
    f(D120, 10, 41, 2, 1),
    f(D120, 10, 42, 2, 1),
    f(D120, 8, 40, 2, 2),
    f(D120, 8, 40, 1, 2),
];

impl Format {
    /// 512-byte sectors in all.
    pub fn total(&self) -> u64 {
        u64::from(self.sectors) * u64::from(self.tracks) * u64::from(self.sides)
    }

    /// The format of a medium of `sectors` sectors in a drive of type `drive`: an exact match, else the first one
    /// that the drive takes.
    pub fn of(sectors: u64, drive: DriveType) -> Option<Self> {
        let fits = || FORMATS.iter().filter(|f| drive.takes(f.drive));
        fits().find(|f| f.total() == sectors).or_else(|| fits().find(|f| f.drive == drive)).copied()
    }

    /// Drive type for a medium in a drive of type `auto`.
    pub fn drive_for(sectors: Option<u64>, fallback: DriveType) -> DriveType {
        let exact = sectors.and_then(|n| FORMATS.iter().find(|f| f.total() == n));
        exact.map_or(fallback, |f| f.drive)
    }
}

/// Where a seek went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The head was there already.
    Same,
    /// It moved.
    Moved,
    /// There is no such track or side.
    BadTrack,
    /// There is no such sector.
    BadSector,
    /// It would have to move, and implied seeks are off.
    NotAllowed,
}

/// One position on the floppy bus.
pub struct FloppyDrive {
    /// Backend; `None` if there is no drive.
    pub disk: Option<Disk>,
    /// Type of the drive.
    pub kind: DriveType,
    /// Format of the medium.
    pub format: Option<Format>,
    /// Head, track and sector under it.
    pub head: u8,
    /// Track.
    pub track: u8,
    /// Sector.
    pub sector: u8,
    /// Disk change line.
    pub changed: bool,
}

impl Default for FloppyDrive {
    fn default() -> Self {
        Self {
            disk: None,
            kind: DriveType::Auto,
            format: None,
            head: 0,
            track: 0,
            sector: 1,
            // An empty drive holds its change line.
            changed: true,
        }
    }
}

impl FloppyDrive {
    /// Whether a medium is in.
    pub fn inserted(&self) -> bool {
        self.disk.as_ref().is_some_and(|d| d.backend.has_medium())
    }

    /// Write protected; so is a drive without medium.
    pub fn read_only(&self) -> bool {
        !self.inserted() || self.disk.as_ref().is_none_or(|d| d.backend.read_only())
    }

    /// Looks at the medium again.
    pub fn revalidate(&mut self) {
        self.format = None;
        if let Some(d) = self.disk.as_ref().filter(|d| d.backend.has_medium()) {
            if self.kind != DriveType::None {
                self.format = Format::of(d.sectors(), self.kind);
            }
        }
    }

    /// Sectors per track; 0 without a medium.
    pub fn last_sector(&self) -> u8 {
        self.format.map_or(0, |f| f.sectors)
    }

    /// Highest track.
    pub fn max_track(&self) -> u8 {
        self.format.map_or(0, |f| f.tracks)
    }

    /// Sides less one.
    pub fn two_sided(&self) -> bool {
        self.format.is_some_and(|f| f.sides == 2)
    }

    /// Sector number on the medium.
    pub fn lba(&self) -> u64 {
        let sides = if self.two_sided() { 2 } else { 1 };
        let track = u64::from(self.track) * sides + u64::from(self.head);
        (track * u64::from(self.last_sector()) + u64::from(self.sector)).saturating_sub(1)
    }

    /// Moves the head. `implied`: it may move to another track.
    pub fn seek(&mut self, head: u8, track: u8, sector: u8, implied: bool) -> Seek {
        if track > self.max_track() || (head != 0 && !self.two_sided()) {
            return Seek::BadTrack;
        }
        if sector > self.last_sector() {
            return Seek::BadSector;
        }
        if track == self.track {
            (self.head, self.sector) = (head, sector);
            return Seek::Same;
        }
        if !implied {
            return Seek::NotAllowed;
        }
        if self.inserted() {
            self.changed = false;
        }
        (self.head, self.track, self.sector) = (head, track, sector);
        Seek::Moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let kb = |k: u64, d| Format::of(k * 2, d).unwrap();
        assert_eq!(kb(1440, D144), f(D144, 18, 80, 2, 0));
        assert_eq!(kb(720, D288).sectors, 9);
        assert_eq!(kb(360, D120).tracks, 40);
        assert_eq!(kb(100, D288).sectors, 36);
        assert_eq!(Format::drive_for(Some(720), D288), D120);
        assert_eq!(Format::drive_for(Some(2880), D288), D144);
        assert_eq!(Format::drive_for(None, D288), D288);
        assert!(Format::of(1, DriveType::None).is_none());
    }
}
