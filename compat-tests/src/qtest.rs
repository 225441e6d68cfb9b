//! Client of the qtest protocol: drives the devices of a stopped machine from outside.
//!
//! Works with rqemu and with QEMU. It needs only the standard library, so that other crates' tests can include
//! this file by `#[path]`.
//!
//! Debian's QEMU is built without `-accel qtest`. There [`Qtest::start`] falls back to `-accel tcg -S`, with
//! which `-qtest` serves everything except the clock commands (`clock_step`, `clock_set`): see
//! [`Qtest::has_clock`].

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Real QEMU.
pub const QEMU: &str = "qemu-system-x86_64";

/// A machine under test; killed when dropped.
pub struct Qtest {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    irqs: Vec<IrqEvent>,
    clock: bool,
}

/// Level change of an intercepted interrupt line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqEvent {
    /// Line number.
    pub line: u32,
    /// New level.
    pub raised: bool,
}

/// A file in the fw_cfg directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgFile {
    /// Name.
    pub name: String,
    /// Selector.
    pub key: u16,
    /// Contents.
    pub data: Vec<u8>,
}

/// fw_cfg selector port; the data port follows.
const FW_CFG: u16 = 0x510;
/// Selector of the file directory.
const FILE_DIR: u16 = 0x19;

/// Whether a comparison with real QEMU must be skipped because it is not installed. In CI (`CI=true`) a
/// missing QEMU is a failure instead.
pub fn skip_without_qemu() -> bool {
    let found = Command::new(QEMU).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return false;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{QEMU} is not installed");
    eprintln!("skipped: {QEMU} is not installed");
    true
}

impl Qtest {
    /// Starts `binary` with `args`, without display and without a running CPU.
    ///
    /// # Errors
    /// The process cannot be started, or it ends before it answers.
    pub fn start<S: AsRef<str>>(binary: &str, args: &[S]) -> io::Result<Self> {
        match Self::spawn(binary, &["-accel", "qtest"], args, true) {
            Ok(qtest) => Ok(qtest),
            Err(_) => Self::spawn(binary, &["-accel", "tcg", "-S"], args, false),
        }
    }

    fn spawn<S: AsRef<str>>(binary: &str, accel: &[&str], args: &[S], clock: bool) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.args(accel).args(["-display", "none", "-qtest", "stdio", "-qtest-log", "/dev/null"]);
        command.args(args.iter().map(AsRef::as_ref));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes to the child"));
        };
        let mut qtest = Self { child, to, from: BufReader::new(from), irqs: Vec::new(), clock };
        qtest.command("endianness")?;
        Ok(qtest)
    }

    /// Whether `clock_step` works (see the module comment).
    pub fn has_clock(&self) -> bool {
        self.clock
    }

    /// Sends one command line and returns the words after `OK`.
    ///
    /// # Errors
    /// The connection ended, or the answer is `FAIL` or `ERR`.
    pub fn command(&mut self, line: &str) -> io::Result<Vec<String>> {
        self.to.write_all(format!("{line}\n").as_bytes())?;
        self.to.flush()?;
        loop {
            let mut answer = String::new();
            if self.from.read_line(&mut answer)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("no answer to {line}")));
            }
            let mut words = answer.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("OK") => return Ok(words.collect()),
                Some("IRQ") => {
                    let raised = words.next().as_deref() == Some("raise");
                    let line = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                    self.irqs.push(IrqEvent { line, raised });
                }
                _ => return Err(io::Error::other(format!("{line}: {}", answer.trim()))),
            }
        }
    }

    /// Interrupt events since the last call.
    pub fn take_irqs(&mut self) -> Vec<IrqEvent> {
        std::mem::take(&mut self.irqs)
    }

    fn send(&mut self, line: String) -> Vec<String> {
        self.command(&line).expect("qtest command")
    }

    fn number(&mut self, line: String) -> u64 {
        let words = self.send(line);
        let text = words.first().map(String::as_str).unwrap_or_default();
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        }
        .expect("a number from qtest")
    }

    /// Reads a byte from a port.
    pub fn inb(&mut self, port: u16) -> u8 {
        self.number(format!("inb {port:#x}")) as u8
    }

    /// Reads a word from a port.
    pub fn inw(&mut self, port: u16) -> u16 {
        self.number(format!("inw {port:#x}")) as u16
    }

    /// Reads a dword from a port.
    pub fn inl(&mut self, port: u16) -> u32 {
        self.number(format!("inl {port:#x}")) as u32
    }

    /// Writes a byte to a port.
    pub fn outb(&mut self, port: u16, value: u8) {
        self.send(format!("outb {port:#x} {value:#x}"));
    }

    /// Writes a word to a port.
    pub fn outw(&mut self, port: u16, value: u16) {
        self.send(format!("outw {port:#x} {value:#x}"));
    }

    /// Writes a dword to a port.
    pub fn outl(&mut self, port: u16, value: u32) {
        self.send(format!("outl {port:#x} {value:#x}"));
    }

    /// Reads a byte, word, dword or qword (`size` 1, 2, 4, 8) from memory as one access.
    pub fn read_access(&mut self, addr: u64, size: u8) -> u64 {
        self.number(format!("read{} {addr:#x}", access_letter(size)))
    }

    /// Writes a byte, word, dword or qword (`size` 1, 2, 4, 8) to memory as one access.
    pub fn write_access(&mut self, addr: u64, size: u8, value: u64) {
        self.send(format!("write{} {addr:#x} {value:#x}", access_letter(size)));
    }

    /// Reads memory.
    pub fn read(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(len);
        while data.len() < len {
            let n = (len - data.len()).min(0x8000);
            let words = self.send(format!("read {:#x} {n:#x}", addr + data.len() as u64));
            let hex = words.first().and_then(|w| w.strip_prefix("0x")).unwrap_or_default().as_bytes();
            assert_eq!(hex.len(), 2 * n, "length of a qtest read");
            data.extend(hex.chunks_exact(2).map(|pair| {
                let digit = |b: u8| char::from(b).to_digit(16).expect("hex digit") as u8;
                digit(pair[0]) << 4 | digit(pair[1])
            }));
        }
        data
    }

    /// Writes memory.
    pub fn write(&mut self, addr: u64, data: &[u8]) {
        for (i, part) in data.chunks(0x8000).enumerate() {
            let hex: String = part.iter().map(|b| format!("{b:02x}")).collect();
            self.send(format!("write {:#x} {:#x} 0x{hex}", addr + (i * 0x8000) as u64, part.len()));
        }
    }

    /// Advances the virtual clock by `ns`, or to the next timer; returns the new time in ns.
    pub fn clock_step(&mut self, ns: Option<u64>) -> u64 {
        assert!(self.clock, "this binary has no qtest accelerator");
        match ns {
            Some(ns) => self.number(format!("clock_step {ns}")),
            None => self.number("clock_step".into()),
        }
    }

    /// Reports level changes of the input lines of the device at a QOM path. One device per process.
    pub fn irq_intercept_in(&mut self, path: &str) {
        self.send(format!("irq_intercept_in {path}"));
    }

    /// Reports level changes of the output lines of the device at a QOM path. One device per process.
    pub fn irq_intercept_out(&mut self, path: &str) {
        self.send(format!("irq_intercept_out {path}"));
    }

    /// Drives an input line of the device at a QOM path.
    pub fn set_irq_in(&mut self, path: &str, name: &str, line: u32, level: u32) {
        self.send(format!("set_irq_in {path} {name} {line} {level}"));
    }

    /// Reads a dword of PCI configuration space through ports 0xcf8 and 0xcfc.
    pub fn pci_read(&mut self, bus: u8, devfn: u8, offset: u8) -> u32 {
        self.outl(0xcf8, 1 << 31 | u32::from(bus) << 16 | u32::from(devfn) << 8 | u32::from(offset & 0xfc));
        self.inl(0xcfc)
    }

    /// Writes a dword of PCI configuration space through ports 0xcf8 and 0xcfc.
    pub fn pci_write(&mut self, bus: u8, devfn: u8, offset: u8, value: u32) {
        self.outl(0xcf8, 1 << 31 | u32::from(bus) << 16 | u32::from(devfn) << 8 | u32::from(offset & 0xfc));
        self.outl(0xcfc, value);
    }

    /// Reads the first `len` bytes of a fw_cfg item: through the DMA register (machine `pc`, RAM at 64 KiB is
    /// overwritten) when there is one, else byte by byte.
    pub fn fw_cfg(&mut self, key: u16, len: usize) -> Vec<u8> {
        const DMA_PORT: u16 = FW_CFG + 4;
        const CONTROL: u64 = 0x1_0000;
        const DATA: u64 = 0x2_0000;
        const SELECT_AND_READ: u32 = 0x8 | 0x2;
        if len < 64 || self.inl(DMA_PORT) != u32::from_le_bytes(*b"QEMU") {
            self.outw(FW_CFG, key);
            return (0..len).map(|_| self.inb(FW_CFG + 1)).collect();
        }
        let mut control = (u32::from(key) << 16 | SELECT_AND_READ).to_be_bytes().to_vec();
        control.extend((len as u32).to_be_bytes());
        control.extend(DATA.to_be_bytes());
        self.write(CONTROL, &control);
        self.outl(DMA_PORT, 0);
        self.outl(DMA_PORT + 4, (CONTROL as u32).swap_bytes());
        self.read(DATA, len)
    }

    /// Reads every file of the fw_cfg directory, in its order. The ACPI files are read after the machine has
    /// rebuilt them.
    pub fn fw_cfg_files(&mut self) -> Vec<FwCfgFile> {
        if let Some((_, key, _)) = self.directory().into_iter().find(|(n, ..)| n == "etc/acpi/tables") {
            // Selecting a file is what rebuilds the tables.
            self.fw_cfg(key, 1);
        }
        let directory = self.directory();
        directory
            .into_iter()
            .map(|(name, key, size)| FwCfgFile { name, key, data: self.fw_cfg(key, size) })
            .collect()
    }

    /// Name, selector and size of every file.
    fn directory(&mut self) -> Vec<(String, u16, usize)> {
        let count = self.fw_cfg(FILE_DIR, 4);
        let count = u32::from_be_bytes(count.try_into().expect("four bytes")) as usize;
        let raw = self.fw_cfg(FILE_DIR, 4 + 64 * count);
        let entry = |e: &[u8]| {
            let size = u32::from_be_bytes([e[0], e[1], e[2], e[3]]) as usize;
            let name = e[8..].split(|b| *b == 0).next().unwrap_or_default();
            (String::from_utf8_lossy(name).into_owned(), u16::from_be_bytes([e[4], e[5]]), size)
        };
        raw[4..].chunks_exact(64).map(entry).collect()
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        // The process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Letter of an access size in the protocol.
fn access_letter(size: u8) -> char {
    match size {
        1 => 'b',
        2 => 'w',
        4 => 'l',
        8 => 'q',
        _ => panic!("access of {size} bytes"),
    }
}

/// Contents of the file called `name`.
pub fn file<'a>(files: &'a [FwCfgFile], name: &str) -> Option<&'a [u8]> {
    files.iter().find(|f| f.name == name).map(|f| f.data.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_qemu_serves_ports_memory_and_fw_cfg() {
        if skip_without_qemu() {
            return;
        }
        let mut q = Qtest::start(QEMU, &["-nodefaults"]).expect("start QEMU");
        assert_eq!(q.fw_cfg(0, 4), b"QEMU");
        assert_eq!(q.pci_read(0, 0, 0), 0x1237_8086);
        q.write(0x5000, b"hello");
        assert_eq!(q.read(0x5000, 5), b"hello");
        q.write_access(0x5000, 4, 0x1234_5678);
        assert_eq!(q.read_access(0x5000, 2), 0x5678);
        let names: Vec<_> = q.fw_cfg_files().into_iter().map(|f| f.name).collect();
        assert!(names.iter().any(|n| n == "etc/acpi/tables"), "{names:?}");
        assert!(q.command("no_such_command").is_err());
    }
}
