use super::*;
use crate::device::testing::machine;
use crate::ui::InputEvent;

fn ask(m: &mut Machine, ecx: u32, ebx: u32) -> BackdoorRegs {
    let mut r = BackdoorRegs { eax: MAGIC, ecx, ebx, edx: 0x5658, esi: 7, edi: 8, ..BackdoorRegs::default() };
    assert_eq!(m.vmport_access(&mut r), Some(r.eax));
    r
}

fn full() -> Machine {
    let mut m = machine();
    m.add::<crate::devices::legacy::i8042::I8042Props>(&[]);
    m.add::<VmportProps>(&[]);
    m.add::<VmMouseProps>(&[]);
    m
}

#[test]
fn answers_as_the_reference_does() {
    let mut m = full();
    m.info.ram_size = 64 << 20;
    m.info.uuid = Some([
        0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
    ]);
    let v = ask(&mut m, 10, 0x3333_3333);
    assert_eq!((v.eax, v.ebx, v.ecx, v.edx), (6, MAGIC, 2, 0x5658));
    let v = ask(&mut m, 20, 0);
    assert_eq!((v.eax, v.ebx, v.ecx), (0x0400_0000, 0x1177, 20));
    let v = ask(&mut m, 19, 0);
    assert_eq!((v.eax, v.ebx, v.ecx, v.edx), (0x7856_3412, 0xf0de_bc9a, 0x4433_2211, 0x8877_6655));
    for unknown in [0, 1, 23, 46, 79, 0x2a_002a] {
        let v = ask(&mut m, unknown, 5);
        assert_eq!((v.eax, v.ebx, v.ecx), (u32::MAX, 5, unknown));
    }
    // No processor stands behind this access.
    assert_eq!(m.inb(PORT), 0xff);
}

#[test]
fn frequencies_are_unknown_without_an_accelerator_that_knows() {
    let mut m = full();
    let v = ask(&mut m, 45, 0);
    assert_eq!((v.eax, v.ebx), (MAGIC, u32::MAX));
}

#[test]
fn the_pointer_gives_its_id_and_reports() {
    let mut m = full();
    assert_eq!(ask(&mut m, 40, 0).eax, 0xffff_0000);
    // Too much data asked for: switched off.
    assert_eq!(ask(&mut m, 39, 4).eax, MAGIC);
    ask(&mut m, 41, 0x4541_4552);
    assert_eq!(ask(&mut m, 40, 0).eax, 1);
    let v = ask(&mut m, 39, 1);
    assert_eq!((v.eax, v.ebx), (0x3442_554a, 1));
    ask(&mut m, 41, 0x5342_4152);
    let dev = m.tree.by_class("vmmouse").expect("exists").id;
    m.with_dev(dev, |d, cx| {
        let i = d.input().expect("takes input");
        assert!(i.takes().abs && !i.takes().rel);
        i.event(cx, InputEvent::Abs { axis: 0, value: 0x100 });
        i.event(cx, InputEvent::Abs { axis: 1, value: 0x7fff });
        i.event(cx, InputEvent::Button { button: 0, down: true });
        i.sync(cx);
    });
    assert_eq!(ask(&mut m, 40, 0).eax, 4);
    let v = ask(&mut m, 39, 4);
    assert_eq!((v.eax, v.ebx, v.ecx, v.edx), (0x20, 0x200, 0xfffe, 0));
    ask(&mut m, 41, 0xf5);
    assert_eq!(ask(&mut m, 40, 0).eax, 0xffff_0000);
}
