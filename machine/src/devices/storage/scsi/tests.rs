//! The expected bytes are those of a real QEMU 7.2 for the same commands.

use super::super::blk::{Disk, ErrorPolicy};
use super::*;
use crate::device::testing::machine;
use crate::machine::Machine;

struct Bench {
    m: Machine,
    dev: DevId,
    unit: Unit,
}

fn bench(kind: UnitKind) -> Bench {
    let m = machine();
    let options =
        serde_json::json!({"driver": "null-co", "node-name": "n", "size": 16 << 20, "read-zeroes": true});
    m.block.blockdev_add(options).unwrap();
    let backend = m.block.backend_for("n").unwrap();
    let (rerror, werror) = (ErrorPolicy::Auto, ErrorPolicy::Auto);
    let disk = Disk { backend, rerror, werror, who: "t".into() };
    let cd = kind == UnitKind::Cd;
    let id = Identity {
        vendor: "QEMU".into(),
        product: if cd { "QEMU CD-ROM" } else { "QEMU HARDDISK" }.into(),
        version: "2.5+".into(),
        serial: if cd { "" } else { "SER1" }.into(),
        device_id: "SER1".into(),
        wwn: 0x5000_c500_15ea_71aa,
        scsi_version: 5,
        removable: cd,
        chs: super::super::geometry::Chs { cyls: 32, heads: 16, secs: 63 },
        block: if cd { 2048 } else { 512 },
        physical: if cd { 2048 } else { 512 },
        discard_granularity: 4096,
        max_unmap: 1 << 30,
        max_io: 0x7fff_ffff,
        ..Identity::default()
    };
    let dev = m.tree.ids().into_iter().next().unwrap_or(DevId(0));
    Bench { m, dev, unit: Unit::new(kind, disk, id) }
}

impl Bench {
    fn run(&mut self, cdb: &[u8], out: &[u8]) -> Outcome {
        let mut cx = Cx { m: &mut self.m, dev: self.dev };
        let parameters = |n: usize| out[..n.min(out.len())].to_vec();
        self.unit.execute(&mut cx, &Cdb::new(cdb), &parameters)
    }

    fn data(&mut self, cdb: &[u8]) -> String {
        match self.run(cdb, &[]) {
            Outcome::Data(d) => d.iter().map(|b| format!("{b:02x}")).collect(),
            other => panic!("{cdb:02x?}: {other:?}"),
        }
    }

    fn sense(&mut self, cdb: &[u8], out: &[u8]) -> Sense {
        match self.run(cdb, out) {
            Outcome::Check(s) => s,
            other => panic!("{cdb:02x?}: {other:?}"),
        }
    }
}

#[test]
fn a_reset_is_told_once_and_not_to_everybody() {
    let mut b = bench(UnitKind::Disk);
    assert!(b.data(&[0x12, 0, 0, 0, 96, 0]).starts_with("000005125b000012"));
    assert_eq!(b.sense(&[0; 6], &[]), Sense::RESET);
    assert!(matches!(b.run(&[0; 6], &[]), Outcome::Good));
    b.unit.reset();
    assert_eq!(&b.data(&[3, 0, 0, 0, 18, 0])[..6], "700006");
    assert!(matches!(b.run(&[0; 6], &[]), Outcome::Good));
}

#[test]
fn a_disk_describes_itself() {
    let mut b = bench(UnitKind::Disk);
    b.run(&[0; 6], &[]);
    assert_eq!(b.data(&[0x12, 1, 0, 0, 255, 0]), "00000006008083b0b1b2");
    assert_eq!(b.data(&[0x12, 1, 0x80, 0, 255, 0]), "0080000453455231");
    assert_eq!(b.data(&[0x12, 1, 0x83, 0, 255, 0]), "008300140200000453455231010300085000c50015ea71aa");
    assert_eq!(
        &b.data(&[0x12, 1, 0xb0, 0, 255, 0])[..64],
        "00b0003c01000000003fffff000000000000000000200000000000ff00000008"
    );
    assert_eq!(b.data(&[0x12, 1, 0xb2, 0, 255, 0]), "00b2000400e00200");
    assert_eq!(b.data(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "00007fff00000200");
    let pages =
        "630000080000800000000200010a8000000000000000000004160000201000002000002000c8ffffff00000015180000\
                 051e1388103f0200002000200020000101000101010000000000000015180000081204";
    assert!(b.data(&[0x1a, 0, 0x3f, 0, 255, 0]).starts_with(pages));
    assert_eq!(b.sense(&[0x1a, 0, 0xff, 0, 255, 0], &[]), Sense::NO_SAVING);
    assert_eq!(b.sense(&[0x12, 1, 0xc0, 0, 255, 0], &[]), Sense::INVALID_FIELD);
    assert_eq!(b.sense(&[0x46, 0, 0, 0, 0, 0, 0, 0, 255, 0], &[]), Sense::INVALID_FIELD);
    assert_eq!(b.sense(&[0xcc, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]), Sense::INVALID_OPCODE);
}

#[test]
fn transfers_stay_on_the_medium() {
    let mut b = bench(UnitKind::Disk);
    b.run(&[0; 6], &[]);
    let step = |op, offset, len, data| Step { op, offset, len, data };
    let steps = |o: Outcome| match o {
        Outcome::Io { steps, .. } => steps,
        other => panic!("{other:?}"),
    };
    let read = steps(b.run(&[0x28, 0, 0, 0, 0, 2, 0, 0, 4, 0], &[]));
    assert_eq!(read, [step(Op::Read, 1024, 2048, Data::Host(0))]);
    let write = steps(b.run(&[0x2a, 8, 0, 0, 0x7f, 0xff, 0, 0, 1, 0], &[]));
    assert_eq!(write, [step(Op::Write { fua: true }, 0x7fff * 512, 512, Data::Host(0))]);
    // The shortest form moves 256 blocks rather than none.
    assert_eq!(steps(b.run(&[8, 0, 0, 0, 0, 0], &[]))[0].len, 256 * 512);
    assert_eq!(b.sense(&[0x28, 0, 0, 0, 0x7f, 0xff, 0, 0, 2, 0], &[]), Sense::OUT_OF_RANGE);
    let far = [0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    assert_eq!(b.sense(&far, &[]), Sense::OUT_OF_RANGE);
    assert_eq!(b.sense(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], &[]), Sense::INVALID_FIELD);
}

#[test]
fn unmap_and_write_same() {
    let mut b = bench(UnitKind::Disk);
    b.run(&[0; 6], &[]);
    let list = |lba: u64, n: u32| {
        let mut d = vec![0, 22, 0, 16, 0, 0, 0, 0];
        d.extend(lba.to_be_bytes());
        d.extend(n.to_be_bytes());
        d.extend([0; 4]);
        d
    };
    let cdb = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    let Outcome::Io { steps, .. } = b.run(&cdb, &list(0x800, 8)) else { panic!() };
    assert_eq!(steps, [Step { op: Op::Discard, offset: 0x800 * 512, len: 4096, data: Data::None }]);
    assert_eq!(b.sense(&cdb, &list(0x8000, 8)), Sense::OUT_OF_RANGE);
    assert_eq!(b.sense(&cdb, &list(u64::MAX, 8)), Sense::OUT_OF_RANGE);
    assert_eq!(b.sense(&cdb, &[0; 4]), Sense::INVALID_PARAM_LEN);
    let same = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 8, 0, 0, 0];
    let Outcome::Io { steps, pattern } = b.run(&same, &[0x51; 512]) else { panic!() };
    // 2048 blocks in two requests with one pattern.
    assert_eq!((steps.len(), pattern.len(), steps[1].offset), (2, 512 << 10, 9 * 512 + (512 << 10)));
    let Outcome::Io { steps, .. } = b.run(&same, &[0; 512]) else { panic!() };
    assert_eq!(steps[0].op, Op::WriteZeroes { unmap: false, fua: false });
}

#[test]
fn the_write_cache_is_switched_and_nothing_else() {
    let mut b = bench(UnitKind::Disk);
    b.run(&[0; 6], &[]);
    let mut page = vec![0, 0, 0, 0, 8, 0x12];
    page.resize(24, 0);
    let select = [0x15, 0x10, 0, 0, 24, 0];
    // Off, which writes back what the cache holds.
    assert!(matches!(b.run(&select, &page), Outcome::Io { .. }));
    assert!(b.data(&[0x1a, 8, 8, 0, 255, 0]).starts_with("17000000081200"));
    page[6] = 4;
    assert!(matches!(b.run(&select, &page), Outcome::Good));
    page[7] = 1;
    assert_eq!(b.sense(&select, &page), Sense::INVALID_PARAM);
    assert_eq!(b.sense(&[0x15, 0x11, 0, 0, 24, 0], &page), Sense::INVALID_FIELD);
    assert_eq!(b.sense(&select, &page[..20]), Sense::INVALID_PARAM_LEN);
}

#[test]
fn a_cd_drive_and_its_tray() {
    let mut b = bench(UnitKind::Cd);
    b.run(&[0; 6], &[]);
    assert_eq!(b.data(&[0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0]), "0012010100140100000000000016aa0000002000");
    assert!(b.data(&[0x46, 0, 0, 0, 0, 0, 0, 0, 255, 0]).starts_with("00000024000000080000030800100000"));
    assert_eq!(b.sense(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[]).key, 7);
    b.run(&[0x1e, 0, 0, 0, 1, 0], &[]);
    assert_eq!(b.sense(&[0x1b, 0, 0, 0, 2, 0], &[]), Sense::LOCKED);
    b.run(&[0x1e, 0, 0, 0, 0, 0], &[]);
    assert!(matches!(b.run(&[0x1b, 0, 0, 0, 2, 0], &[]), Outcome::Good));
    assert_eq!(b.sense(&[0; 6], &[]), Sense::NO_MEDIUM);
    b.unit.media_changed(true);
    assert_eq!(b.sense(&[0; 6], &[]), Sense::ATTENTION_NO_MEDIUM);
    assert_eq!(b.sense(&[0; 6], &[]), Sense::MEDIUM_CHANGED);
    assert!(matches!(b.run(&[0; 6], &[]), Outcome::Good));
}

#[test]
fn targets_answer_for_units_they_do_not_have() {
    let list = target::execute(&Cdb::new(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), 0, &[3, 300]);
    let Outcome::Exactly(d) = list else { panic!() };
    assert_eq!(d[..4], [0, 0, 0, 24]);
    assert_eq!((&d[16..18], &d[24..26]), (&[0u8, 3][..], &[0x41u8, 44][..]));
    let lost = target::execute(&Cdb::new(&[0; 6]), 5, &[0]);
    assert!(matches!(lost, Outcome::Check(Sense::NO_UNIT)));
    let Outcome::Exactly(d) = target::execute(&Cdb::new(&[0x12, 0, 0, 0, 36, 0]), 5, &[0]) else { panic!() };
    assert_eq!(d[0], 0x7f);
}
