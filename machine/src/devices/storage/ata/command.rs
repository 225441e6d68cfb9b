//! Commands of disks, and those that disks and packet devices share (ATA/ATAPI-6 chapter 8).

use super::identify::{WORD_ENABLED, WORD_MULTIWORD_DMA, WORD_SINGLE_DMA, WORD_ULTRA_DMA};
use super::{status, AfterPio, AtaPort, Dma, Drive, Kind, MAX_MULTIPLE};
use crate::device::Cx;

/// Command codes.
#[allow(missing_docs)]
pub mod cmd {
    pub const DSM: u8 = 0x06;
    pub const DEVICE_RESET: u8 = 0x08;
    pub const RECALIBRATE: u8 = 0x10;
    pub const READ: u8 = 0x20;
    pub const READ_ONCE: u8 = 0x21;
    pub const READ_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const WRITE: u8 = 0x30;
    pub const WRITE_ONCE: u8 = 0x31;
    pub const WRITE_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const WRITE_VERIFY: u8 = 0x3c;
    pub const VERIFY: u8 = 0x40;
    pub const VERIFY_ONCE: u8 = 0x41;
    pub const VERIFY_EXT: u8 = 0x42;
    pub const SEEK: u8 = 0x70;
    pub const DIAGNOSE: u8 = 0x90;
    pub const INIT_PARAMS: u8 = 0x91;
    pub const STANDBY_NOW_OLD: u8 = 0x94;
    pub const IDLE_NOW_OLD: u8 = 0x95;
    pub const STANDBY_OLD: u8 = 0x96;
    pub const IDLE_OLD: u8 = 0x97;
    pub const CHECK_POWER_OLD: u8 = 0x98;
    pub const SLEEP_OLD: u8 = 0x99;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET: u8 = 0xa1;
    pub const SMART: u8 = 0xb0;
    pub const READ_MULTIPLE: u8 = 0xc4;
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    pub const SET_MULTIPLE: u8 = 0xc6;
    pub const READ_DMA: u8 = 0xc8;
    pub const READ_DMA_ONCE: u8 = 0xc9;
    pub const WRITE_DMA: u8 = 0xca;
    pub const WRITE_DMA_ONCE: u8 = 0xcb;
    pub const STANDBY_NOW: u8 = 0xe0;
    pub const IDLE_NOW: u8 = 0xe1;
    pub const STANDBY: u8 = 0xe2;
    pub const IDLE: u8 = 0xe3;
    pub const CHECK_POWER: u8 = 0xe5;
    pub const SLEEP: u8 = 0xe6;
    pub const FLUSH: u8 = 0xe7;
    pub const FLUSH_EXT: u8 = 0xea;
    pub const IDENTIFY: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
    pub const FREEZE_LOCK: u8 = 0xf5;
    pub const READ_NATIVE_MAX: u8 = 0xf8;
}

/// What a command handler left behind.
enum Outcome {
    /// Complete: clear BSY, interrupt; with seek complete.
    Done,
    /// Complete without seek complete (power commands).
    DoneNoSeek,
    /// The handler has taken care of status and interrupt, or will.
    Handled,
    /// Not possible.
    Abort,
}

use Outcome::{Abort, Done, DoneNoSeek, Handled};

impl Drive {
    /// The host wrote the command register. The adapter has dropped the interrupt already.
    pub fn command(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, code: u8) {
        if self.busy() {
            // Only a packet device can be reset out of a command.
            if self.kind != Kind::Cd || code != cmd::DEVICE_RESET {
                return;
            }
            self.cancel();
        }
        self.tf.status = status::DRDY | status::BSY;
        self.tf.error = 0;
        self.stop_pio();
        let outcome = match self.kind {
            Kind::Disk => self.disk_command(cx, port, code),
            Kind::Cd => self.packet_device_command(code),
            Kind::None => Abort,
        };
        match outcome {
            Handled => {}
            Abort => self.abort(cx, port),
            Done | DoneNoSeek => {
                self.tf.status &= !status::BSY;
                if matches!(outcome, Done) {
                    self.tf.status |= status::DSC;
                }
                port.irq(cx);
            }
        }
        // Data of IDENTIFY and the like: the interrupt is part of it.
        self.pump(cx, port);
    }

    fn disk_command(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, code: u8) -> Outcome {
        match code {
            cmd::READ | cmd::READ_ONCE | cmd::READ_EXT => {
                self.read_sectors(cx, port, code == cmd::READ_EXT, 1)
            }
            cmd::READ_MULTIPLE | cmd::READ_MULTIPLE_EXT => {
                self.read_sectors(cx, port, code == cmd::READ_MULTIPLE_EXT, self.mult)
            }
            cmd::WRITE | cmd::WRITE_ONCE | cmd::WRITE_VERIFY | cmd::WRITE_EXT => {
                self.write_sectors(code == cmd::WRITE_EXT, 1)
            }
            cmd::WRITE_MULTIPLE | cmd::WRITE_MULTIPLE_EXT => {
                self.write_sectors(code == cmd::WRITE_MULTIPLE_EXT, self.mult)
            }
            cmd::READ_DMA | cmd::READ_DMA_ONCE | cmd::READ_DMA_EXT => {
                self.dma_sectors(cx, port, code == cmd::READ_DMA_EXT, Dma::Read)
            }
            cmd::WRITE_DMA | cmd::WRITE_DMA_ONCE | cmd::WRITE_DMA_EXT => {
                self.dma_sectors(cx, port, code == cmd::WRITE_DMA_EXT, Dma::Write)
            }
            cmd::DSM if self.tf.feature == 1 => self.dma_sectors(cx, port, false, Dma::Trim),
            cmd::VERIFY | cmd::VERIFY_ONCE | cmd::VERIFY_EXT => {
                self.widen_count(code == cmd::VERIFY_EXT);
                Done
            }
            cmd::READ_NATIVE_MAX | cmd::READ_NATIVE_MAX_EXT => {
                if self.sectors() == 0 {
                    return Abort;
                }
                self.widen_count(code == cmd::READ_NATIVE_MAX_EXT);
                self.set_lba(self.sectors() - 1);
                Done
            }
            cmd::INIT_PARAMS => {
                self.chs.heads = u32::from(self.tf.select & 15) + 1;
                // A count left over from a command that took 0 as 256 or 65536 stays what it means.
                self.chs.secs = self.tf.nsector;
                Done
            }
            cmd::SET_MULTIPLE => self.set_multiple(),
            cmd::RECALIBRATE | cmd::SEEK => Done,
            cmd::CHECK_POWER | cmd::CHECK_POWER_OLD => {
                self.tf.nsector = 0xff; // active or idle
                Done
            }
            cmd::FREEZE_LOCK => {
                self.tf.nsector = 0;
                Done
            }
            cmd::STANDBY_NOW_OLD
            | cmd::IDLE_NOW_OLD
            | cmd::STANDBY_OLD
            | cmd::IDLE_OLD
            | cmd::SLEEP_OLD
            | cmd::STANDBY_NOW
            | cmd::IDLE_NOW
            | cmd::STANDBY
            | cmd::IDLE
            | cmd::SLEEP => DoneNoSeek,
            cmd::FLUSH | cmd::FLUSH_EXT => {
                self.flush();
                Handled
            }
            cmd::SMART => match self.smart_command(cx, port) {
                Some(true) => Done,
                Some(false) => Handled,
                None => Abort,
            },
            cmd::IDENTIFY => {
                let data = *self.identify_data();
                self.reply_sector(cx, port, &data);
                Handled
            }
            cmd::SET_FEATURES => self.set_features(),
            _ => Abort,
        }
    }

    fn packet_device_command(&mut self, code: u8) -> Outcome {
        match code {
            cmd::DEVICE_RESET => {
                self.power_on();
                self.tf.status = 0;
                Handled
            }
            // Hosts probe with these; the signature tells them what they found.
            cmd::READ | cmd::IDENTIFY => {
                self.set_signature();
                Abort
            }
            cmd::IDENTIFY_PACKET => {
                let data = *self.identify_data();
                self.buf.clear();
                self.buf.extend_from_slice(&data);
                self.tf.status |= status::DSC;
                self.offer(512, AfterPio::Done);
                Done
            }
            cmd::PACKET => self.packet_command(),
            cmd::FLUSH => {
                self.flush();
                Handled
            }
            cmd::SET_FEATURES => self.set_features(),
            _ => Abort,
        }
    }

    fn packet_command(&mut self) -> Outcome {
        // Overlapped operation is not there.
        if self.tf.feature & 2 != 0 {
            return Abort;
        }
        self.tf.status = status::DRDY | status::DSC;
        self.tf.nsector = 1; // command phase
        self.cd.begin(self.tf.feature & 1 != 0);
        self.request(12, AfterPio::Packet);
        Handled
    }

    fn read_sectors(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, ext: bool, block: u32) -> Outcome {
        if block == 0 {
            return Abort;
        }
        self.widen_count(ext);
        self.block = block;
        self.read_block(cx, port);
        Handled
    }

    fn write_sectors(&mut self, ext: bool, block: u32) -> Outcome {
        if block == 0 {
            return Abort;
        }
        self.widen_count(ext);
        self.block = block;
        self.first_write();
        Handled
    }

    fn dma_sectors(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, ext: bool, what: Dma) -> Outcome {
        if what != Dma::Trim {
            self.widen_count(ext);
        }
        self.start_dma(cx, port, what);
        Handled
    }

    fn set_multiple(&mut self) -> Outcome {
        let n = self.tf.nsector & 0xff;
        // The whole count must be a power of two, also the part that a 48-bit command left above the register.
        if n != 0 && (n > MAX_MULTIPLE || !self.tf.nsector.is_power_of_two()) {
            return Abort;
        }
        self.mult = n;
        Done
    }

    fn set_features(&mut self) -> Outcome {
        let write_cache = |d: &Self, on| {
            if let Some(d) = &d.disk {
                d.backend.enable_write_cache(on);
            }
        };
        match self.tf.feature {
            0x02 => {
                write_cache(self, true);
                self.identify_patch(WORD_ENABLED, |_| 0x4021);
                Done
            }
            0x82 => {
                write_cache(self, false);
                self.identify_patch(WORD_ENABLED, |_| 0x4001);
                self.flush();
                Handled
            }
            0x03 => self.set_transfer_mode(),
            // Acoustic and power management, look-ahead, power-on defaults, retries, removable media: accepted.
            0x05 | 0x42 | 0x55 | 0x66 | 0x67 | 0x69 | 0x85 | 0x96 | 0x9a | 0xaa | 0xc2 | 0xcc => Done,
            _ => Abort,
        }
    }

    /// SET FEATURES 03h: transfer mode in the sector count register.
    fn set_transfer_mode(&mut self) -> Outcome {
        let n = self.tf.nsector;
        let active = 1u16 << (n & 7);
        let (single, multiword, ultra) = match n >> 3 {
            0 | 1 => (0, 0, 0), // PIO, without and with flow control
            2 => (active << 8, 0, 0),
            4 => (0, active << 8, 0),
            8 => (0, 0, active << 8),
            _ => return Abort,
        };
        self.identify_patch(WORD_SINGLE_DMA, |_| 7 | single);
        self.identify_patch(WORD_MULTIWORD_DMA, |_| 7 | multiword);
        self.identify_patch(WORD_ULTRA_DMA, |_| 0x3f | ultra);
        Done
    }
}
