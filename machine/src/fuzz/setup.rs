//! A machine with one device of a class, and what the class needs: a controller, a drive, a character device.

use crate::builder::{build, Built, Messages};
use crate::device::{BusKind, DevId};
use crate::qom::{class_by_name, ClassInfo};
use crate::spec::{
    AccelOrigin, AccelSpec, BlockdevSpec, ChardevBackend, ChardevSpec, DeviceSpec, Dict, Loc, NetPeer,
    NetdevSpec, ObjectSpec, Value, VmSpec,
};

/// RAM of the guest in bytes.
pub const RAM: u64 = 16 << 20;

/// Nobody to tell.
pub struct Silent;

impl Messages for Silent {
    fn warning(&mut self, _: &str) {}
    fn info(&mut self, _: &str) {}
    fn out(&mut self, _: &str) {}
    fn warning_at(&mut self, _: &Loc, _: &str) {}
    fn plain(&mut self, _: &str) {}
}

/// Builds a machine and finds or creates a device of `class` in it: as the board has it, or as `-device` makes it.
///
/// # Errors
/// No board has one and users cannot create it, or what it says.
pub fn machine_with(class: &str) -> Result<(Built, DevId), String> {
    let info = class_by_name(class).ok_or("no such class")?;
    let mut why = String::from("only other accelerators have it");
    for board in ["pc", "microvm"] {
        let mut with_device = spec(board);
        if info.user_creatable {
            add_device(&mut with_device, info);
        } else if class == "cfi.pflash01" {
            add_flash(&mut with_device);
        }
        match build(&mut with_device, &mut Silent) {
            Ok(b) => {
                let found = find(&b, class);
                if let Some(id) = found {
                    return Ok((b, id));
                }
            }
            Err(e) => why = e.desc,
        }
    }
    Err(why)
}

/// The last device of the class: the one that was asked for, if the board has some too.
fn find(b: &Built, class: &str) -> Option<DevId> {
    let m = b.shared.lock();
    let ids: Vec<DevId> =
        m.tree.iter().filter(|n| n.class.name == class && n.dev.is_some()).map(|n| n.id).collect();
    ids.last().copied()
}

fn spec(board: &str) -> VmSpec {
    let mut s = VmSpec::default();
    s.machine.kind = Some(board.into());
    s.accels.push(AccelSpec {
        name: "tcg".into(),
        props: Dict::new(),
        origin: AccelOrigin::Option,
        loc: Loc::NONE,
    });
    s.memory.size = Some(RAM);
    s
}

fn add_device(s: &mut VmSpec, class: &ClassInfo) {
    let controller = match class.bus {
        Some(BusKind::VirtioSerial) => Some("virtio-serial-pci"),
        Some(BusKind::Scsi) => Some("virtio-scsi-pci"),
        Some(BusKind::Usb) => Some("qemu-xhci"),
        _ => None,
    };
    if let Some(c) = controller {
        s.devices.push(DeviceSpec {
            driver: c.into(),
            id: None,
            props: Dict::new(),
            json: false,
            loc: Loc::NONE,
        });
    }
    let mut props = Dict::new();
    for p in class.props.iter() {
        match p.name {
            "drive" => {
                let mut node = dict(&[("driver", "null-co"), ("node-name", "blk0")]);
                node.push("size", Value::Int(64 << 20));
                node.push("read-zeroes", Value::Bool(true));
                s.blockdevs.push(BlockdevSpec { options: node, loc: Loc::NONE });
                props.push("drive", Value::text("blk0"));
            }
            "chardev" => {
                s.chardevs.push(ChardevSpec {
                    id: "chr0".into(),
                    backend: ChardevBackend::Null,
                    logfile: None,
                    logappend: false,
                    loc: Loc::NONE,
                });
                props.push("chardev", Value::text("chr0"));
            }
            "netdev" => {
                s.netdevs.push(NetdevSpec {
                    kind: "hubport".into(),
                    id: Some("net0".into()),
                    props: dict(&[("hubid", "0")]),
                    peer: NetPeer::None,
                    loc: Loc::NONE,
                });
                props.push("netdev", Value::text("net0"));
            }
            "memdev" => {
                s.objects.push(ObjectSpec {
                    qom_type: "memory-backend-ram".into(),
                    id: "mem0".into(),
                    props: dict(&[("size", "1M")]),
                    loc: Loc::NONE,
                });
                props.push("memdev", Value::text("mem0"));
            }
            "chassis_nr" => props.push("chassis_nr", Value::Int(1)),
            _ => {}
        }
    }
    s.devices.push(DeviceSpec {
        driver: class.name.into(),
        id: Some("target".into()),
        props,
        json: false,
        loc: Loc::NONE,
    });
}

/// The board makes flash chips for those who have an image for them.
fn add_flash(s: &mut VmSpec) {
    let mut node = dict(&[("driver", "null-co"), ("node-name", "flash")]);
    node.push("size", Value::Int(1 << 20));
    node.push("read-zeroes", Value::Bool(true));
    s.blockdevs.push(BlockdevSpec { options: node, loc: Loc::NONE });
    s.machine.props.push("pflash0", Value::text("flash"));
}

fn dict(items: &[(&str, &str)]) -> Dict {
    items.iter().map(|(k, v)| (k.to_string(), Value::text(*v))).collect()
}
