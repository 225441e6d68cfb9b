//! Boot order: `bootindex` properties become the firmware's list of Open Firmware device paths.

use crate::device::{BusKind, DevId, Place};
use crate::firmware::fw_cfg_files::geometry_line;
use crate::machine::Machine;
use crate::pci::reg;
use crate::{qerr, QResult};

/// Paths of all devices with a `bootindex`, in its order, and `others` (index and path) between them.
///
/// # Errors
/// An index that is used twice.
pub fn boot_order(m: &mut Machine, others: Vec<(i64, String)>) -> QResult<Vec<String>> {
    let devices: Vec<(i64, DevId)> = m
        .tree
        .iter()
        // A PCI transport shows the properties of the device behind it, which must not count twice.
        .filter(|n| !matches!(n.place, Place::Child(_, "virtio-backend")))
        .filter_map(|n| {
            let index = n.props.get_prop("bootindex")?.value.as_i64()?;
            (index >= 0).then_some((index, n.id))
        })
        .collect();
    let mut list = others;
    list.extend(devices.into_iter().map(|(index, dev)| (index, fw_path(m, dev))));
    list.sort_by_key(|e| e.0);
    if let Some(w) = list.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(qerr!("The bootindex {} has already been used", w[0].0));
    }
    Ok(list.into_iter().map(|(_, path)| path).collect())
}

/// Lines of `bios-geometry`: the disks whose logical geometry (`lcyls`, `lheads`, `lsecs`) the user chose.
pub fn disk_geometries(m: &mut Machine) -> Vec<String> {
    let disks: Vec<(DevId, [u32; 3])> = m
        .tree
        .iter()
        .filter(|n| !matches!(n.place, Place::Child(_, "virtio-backend")))
        .filter_map(|n| {
            let get = |name| n.props.get_prop(name)?.value.as_u64().map(|v| v as u32);
            let chs = [get("lcyls")?, get("lheads")?, get("lsecs")?];
            (chs != [0; 3]).then_some((n.id, chs))
        })
        .collect();
    disks.into_iter().map(|(dev, [c, h, s])| geometry_line(&fw_path(m, dev), c, h, s)).collect()
}

/// Open Firmware path of a device.
pub fn fw_path(m: &mut Machine, dev: DevId) -> String {
    let Some((bus, class)) = m.tree.get(dev).map(|n| (n.parent_bus, n.class.name)) else {
        return String::new();
    };
    let Some(b) = bus.and_then(|b| m.tree.bus(b)) else { return String::new() };
    let (kind, owner, name) = (b.kind, b.owner, b.name.clone());
    let number = |m: &Machine, prop: &str| {
        m.tree.get(dev).and_then(|n| n.props.get_prop(prop)).and_then(|p| p.value.as_u64()).unwrap_or(0)
    };
    let parent = |m: &mut Machine| owner.map_or_else(String::new, |o| fw_path(m, o));
    match kind {
        BusKind::Pci => {
            let up = if name == "pci.0" { "/pci@i0cf8".to_string() } else { parent(m) };
            let (node, tail) = pci_node(m, dev);
            format!("{up}/{node}{tail}")
        }
        BusKind::Ide => {
            let channel = name.rsplit('.').next().unwrap_or("0").to_string();
            format!("{}/drive@{channel}/disk@{}", parent(m), number(m, "unit"))
        }
        BusKind::Floppy => format!("/pci@i0cf8/isa@1/fdc@03f0/floppy@{:x}", number(m, "unit")),
        BusKind::Scsi => {
            format!("{}/channel@0/disk@{:x},{:x}", parent(m), number(m, "scsi-id"), number(m, "lun"))
        }
        BusKind::Virtio => parent(m),
        _ => format!("/{class}"),
    }
}

/// `scsi@4` and what hangs below it.
fn pci_node(m: &mut Machine, dev: DevId) -> (String, &'static str) {
    let facts = m.with_dev(dev, |d, _| {
        d.pci().map(|p| {
            let s = p.state();
            (s.devfn, s.word(reg::CLASS_DEVICE), s.word(reg::VENDOR_ID), s.word(reg::DEVICE_ID))
        })
    });
    let Some(Some((devfn, class, vendor, device))) = facts else { return (String::new(), "") };
    let (name, tail) = match class {
        0x0101 => ("ide".to_string(), ""),
        0x0100 if vendor == 0x1af4 && matches!(device, 0x1001 | 0x1042) => ("scsi".to_string(), "/disk@0,0"),
        0x0100 => ("scsi".to_string(), ""),
        0x0200 => ("ethernet".to_string(), "/ethernet-phy@0"),
        0x0601 => ("isa".to_string(), ""),
        0x0604 => ("pci-bridge".to_string(), ""),
        _ => (format!("pci{vendor:x},{device:x}"), ""),
    };
    let unit = if devfn & 7 == 0 {
        format!("{:x}", devfn >> 3)
    } else {
        format!("{:x},{:x}", devfn >> 3, devfn & 7)
    };
    (format!("{name}@{unit}"), tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::testing::{pci_machine, plug};

    #[test]
    fn a_virtio_device_counts_once() {
        let mut m = pci_machine();
        plug(&mut m, "virtio-net-pci", &[("bootindex", "1")]).unwrap();
        plug(&mut m, "e1000", &[("bootindex", "0")]).unwrap();
        let order = boot_order(&mut m, Vec::new()).unwrap();
        assert_eq!(order, ["/pci@i0cf8/ethernet@1/ethernet-phy@0", "/pci@i0cf8/ethernet@0/ethernet-phy@0"]);
        plug(&mut m, "rtl8139", &[("bootindex", "1")]).unwrap();
        let e = boot_order(&mut m, Vec::new()).unwrap_err();
        assert_eq!(e.desc, "The bootindex 1 has already been used");
    }

    #[test]
    fn logical_geometry_of_a_disk() {
        let mut m = pci_machine();
        let opts = serde_json::json!({"driver": "null-co", "node-name": "d", "size": 1 << 20});
        m.block.blockdev_add(opts).unwrap();
        plug(&mut m, "virtio-blk-pci", &[("drive", "d"), ("lcyls", "11"), ("lheads", "5"), ("lsecs", "18")])
            .unwrap();
        let lines = disk_geometries(&mut m);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("/disk@0,0 11 5 18"), "{}", lines[0]);
    }
}
