//! The `etc/table-loader` command stream: tells firmware how to place and link the table blobs.
//!
//! Each command has 128 bytes, little endian, unused bytes zero: `u32` command, then
//! 1 allocate: file\[56\], `u32` alignment, `u8` zone (1 high, 2 F segment);
//! 2 add pointer: destination file\[56\], source file\[56\], `u32` offset, `u8` size;
//! 3 add checksum: file\[56\], `u32` offset of the sum, `u32` start, `u32` length;
//! 4 write pointer (back to fw_cfg): destination\[56\], source\[56\], `u32` destination offset, `u32` source
//! offset, `u8` size.

/// Size of a command.
pub const COMMAND_LEN: usize = 128;
/// Size of a file name with its terminating zero.
pub const FILE_LEN: usize = 56;

/// Where firmware places a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High = 1,
    /// In the F segment (0xe0000 to 0xfffff), where a guest looks for anchors.
    FSegment = 2,
}

/// One decoded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Place a file.
    Allocate {
        /// File.
        file: String,
        /// Alignment, a power of two.
        align: u32,
        /// Where.
        zone: Zone,
    },
    /// Add the address of `source` to the pointer of `size` bytes at `offset` in `file`.
    AddPointer {
        /// File that holds the pointer.
        file: String,
        /// File that it points into.
        source: String,
        /// Where the pointer is.
        offset: u32,
        /// 1, 2, 4 or 8.
        size: u8,
    },
    /// Make the bytes from `start` add up to zero by setting the byte at `offset`.
    AddChecksum {
        /// File.
        file: String,
        /// Where the checksum is.
        offset: u32,
        /// First byte covered.
        start: u32,
        /// Number of bytes.
        len: u32,
    },
    /// Write the address of `source` plus `source_offset` back to a writable fw_cfg file.
    WritePointer {
        /// Writable file.
        file: String,
        /// File whose address goes there.
        source: String,
        /// Where in `file`.
        offset: u32,
        /// What to add.
        source_offset: u32,
        /// 1, 2, 4 or 8.
        size: u8,
    },
}

impl Command {
    /// Encodes the command. File names are cut to 55 bytes.
    fn encode(&self) -> [u8; COMMAND_LEN] {
        let mut c = Encoder { bytes: [0; COMMAND_LEN], at: 0 };
        match self {
            Self::Allocate { file, align, zone } => {
                c.dword(1).file(file).dword(*align).byte(*zone as u8);
            }
            Self::AddPointer { file, source, offset, size } => {
                c.dword(2).file(file).file(source).dword(*offset).byte(*size);
            }
            Self::AddChecksum { file, offset, start, len } => {
                c.dword(3).file(file).dword(*offset).dword(*start).dword(*len);
            }
            Self::WritePointer { file, source, offset, source_offset, size } => {
                c.dword(4).file(file).file(source).dword(*offset).dword(*source_offset).byte(*size);
            }
        }
        c.bytes
    }

    /// Decodes one command; `None` for an empty or unknown one.
    fn decode(raw: &[u8]) -> Option<Self> {
        let mut d = Decoder { raw };
        Some(match d.dword()? {
            1 => Self::Allocate {
                file: d.file()?,
                align: d.dword()?,
                zone: if d.byte()? == Zone::FSegment as u8 { Zone::FSegment } else { Zone::High },
            },
            2 => Self::AddPointer { file: d.file()?, source: d.file()?, offset: d.dword()?, size: d.byte()? },
            3 => {
                Self::AddChecksum { file: d.file()?, offset: d.dword()?, start: d.dword()?, len: d.dword()? }
            }
            4 => Self::WritePointer {
                file: d.file()?,
                source: d.file()?,
                offset: d.dword()?,
                source_offset: d.dword()?,
                size: d.byte()?,
            },
            _ => return None,
        })
    }
}

/// Fills a command from its start.
struct Encoder {
    bytes: [u8; COMMAND_LEN],
    at: usize,
}

impl Encoder {
    fn put(&mut self, bytes: &[u8], room: usize) -> &mut Self {
        let n = bytes.len().min(room);
        self.bytes[self.at..self.at + n].copy_from_slice(&bytes[..n]);
        self.at += room;
        self
    }

    fn byte(&mut self, value: u8) -> &mut Self {
        self.put(&[value], 1)
    }

    fn dword(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes(), 4)
    }

    fn file(&mut self, name: &str) -> &mut Self {
        let n = name.len().min(FILE_LEN - 1);
        self.put(&name.as_bytes()[..n], FILE_LEN)
    }
}

/// Takes fields from the start of a command.
struct Decoder<'a> {
    raw: &'a [u8],
}

impl Decoder<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.raw.split_first_chunk()?;
        self.raw = tail;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take::<1>()?[0])
    }

    fn dword(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take()?))
    }

    fn file(&mut self) -> Option<String> {
        let raw = self.take::<FILE_LEN>()?;
        let name = raw.split(|b| *b == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(name).into_owned())
    }
}

/// The command stream under construction.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    allocations: Vec<Command>,
    commands: Vec<Command>,
}

impl Loader {
    /// Adds an allocation. They precede all other commands, the last one first.
    pub fn allocate(&mut self, file: &str, align: u32, zone: Zone) {
        self.allocations.insert(0, Command::Allocate { file: file.into(), align, zone });
    }

    /// Adds a pointer of `size` bytes; the offset into `source` is already in the file.
    pub fn add_pointer(&mut self, file: &str, offset: usize, size: u8, source: &str) {
        self.commands.push(Command::AddPointer {
            file: file.into(),
            source: source.into(),
            offset: offset as u32,
            size,
        });
    }

    /// Adds a checksum.
    pub fn add_checksum(&mut self, file: &str, offset: usize, start: usize, len: usize) {
        self.commands.push(Command::AddChecksum {
            file: file.into(),
            offset: offset as u32,
            start: start as u32,
            len: len as u32,
        });
    }

    /// Adds a pointer that firmware writes back.
    pub fn write_pointer(&mut self, file: &str, offset: u32, size: u8, source: &str, source_offset: u32) {
        self.commands.push(Command::WritePointer {
            file: file.into(),
            source: source.into(),
            offset,
            source_offset,
            size,
        });
    }

    /// The bytes of the stream (not padded).
    pub fn bytes(&self) -> Vec<u8> {
        self.allocations.iter().chain(&self.commands).flat_map(Command::encode).collect()
    }
}

/// Decodes a stream; zero commands (padding) are skipped, unknown ones too, as firmware does.
pub fn decode(stream: &[u8]) -> Vec<Command> {
    stream.chunks_exact(COMMAND_LEN).filter_map(Command::decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_decode_to_what_was_encoded() {
        let mut loader = Loader::default();
        loader.allocate("etc/acpi/tables", 64, Zone::High);
        loader.add_checksum("etc/acpi/tables", 73, 64, 6476);
        loader.allocate("etc/acpi/rsdp", 16, Zone::FSegment);
        loader.add_pointer("etc/acpi/rsdp", 16, 4, "etc/acpi/tables");
        loader.write_pointer("etc/vmgenid_addr", 0, 8, "etc/vmgenid_guid", 40);
        let mut stream = loader.bytes();
        assert_eq!(stream.len(), 5 * COMMAND_LEN);
        stream.resize(4096, 0);
        let commands = decode(&stream);
        assert_eq!(commands.len(), 5);
        assert!(
            matches!(&commands[0], Command::Allocate { file, align: 16, zone: Zone::FSegment } if file == "etc/acpi/rsdp")
        );
        assert!(matches!(&commands[1], Command::Allocate { align: 64, zone: Zone::High, .. }));
        assert!(matches!(commands[2], Command::AddChecksum { offset: 73, start: 64, len: 6476, .. }));
        assert!(
            matches!(&commands[3], Command::AddPointer { offset: 16, size: 4, source, .. } if source == "etc/acpi/tables")
        );
        assert!(matches!(commands[4], Command::WritePointer { offset: 0, source_offset: 40, size: 8, .. }));
    }

    #[test]
    fn truncated_streams_are_cut_at_whole_commands() {
        assert!(decode(&[1, 0, 0, 0]).is_empty());
        assert!(decode(&[0xff; COMMAND_LEN]).is_empty());
    }
}
