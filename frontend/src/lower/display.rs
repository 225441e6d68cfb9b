//! Displays and video cards.

use rqemu_machine::qerr;
use rqemu_machine::qom::class_by_name;
use rqemu_machine::spec::schema;
use rqemu_machine::spec::visit::{self, Mode};
use rqemu_machine::spec::{Loc, VgaKind};

use super::device::plain;
use super::{at, is_help, Arg, Cx, Res, Stop};
use crate::groups;
use crate::{json, keyval, HelpRequest};

/// `-display`.
pub fn display(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if let Some(rest) = arg.value.strip_prefix("vnc") {
        return match rest.strip_prefix('=') {
            Some(text) => vnc_text(cx, text, &arg.loc),
            None => Err(Stop::error(&arg.loc, qerr!("VNC requires a display argument vnc=<display>"))),
        };
    }
    if is_help(arg.value) {
        return Err(Stop::Help(HelpRequest::Display));
    }
    let (dict, mode) = if json::is_json(arg.value) {
        (at(&arg.loc, json::parse_object(arg.value))?, Mode::Json)
    } else {
        (at(&arg.loc, keyval::parse_no_help(arg.value, Some("type")))?, Mode::Keyval)
    };
    let mut props = at(&arg.loc, visit::check(dict, &schema::DISPLAY, mode))?;
    cx.spec.display.kind = props.remove_str("type").filter(|t| t != "default");
    cx.spec.display.props = props;
    Ok(())
}

/// `-nographic`.
pub fn nographic(cx: &mut Cx, _: &Arg<'_>) -> Res {
    cx.spec.display.nographic = true;
    cx.spec.display.kind = Some("none".to_string());
    Ok(())
}

/// `-full-screen`.
pub fn full_screen(cx: &mut Cx, _: &Arg<'_>) -> Res {
    cx.spec.display.full_screen = true;
    Ok(())
}

/// `-portrait` and `-rotate`: they turn the PXA LCD only, which no PC has.
pub fn rotate(_: &mut Cx, _: &Arg<'_>) -> Res {
    Ok(())
}

/// `-vnc`.
pub fn vnc(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    vnc_text(cx, arg.value, &arg.loc)
}

fn vnc_text(cx: &mut Cx, text: &str, loc: &Loc) -> Res {
    let opts = cx.opts(&groups::VNC, text, loc)?;
    cx.add(opts)
}

/// `-k`.
pub fn keymap(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.display.keymap = Some(arg.value.to_string());
    Ok(())
}

/// `-vga`.
pub fn vga(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.late.vga = Some(arg.value.to_string());
    cx.spec.defaults.vga = false;
    Ok(())
}

/// `-vga`, VNC and SPICE.
pub fn finish(cx: &mut Cx) -> Res {
    if let Some(name) = cx.late.vga.take() {
        if is_help(&name) {
            return Err(Stop::Help(HelpRequest::Vga));
        }
        let Some(card) = VGA_CARDS.iter().find(|c| c.name == name) else {
            return Err(Stop::error(&Loc::NONE, qerr!("unknown vga type: {name}")));
        };
        if !card.available() {
            return Err(Stop::error(&Loc::NONE, qerr!("{} not available", card.text)));
        }
        cx.spec.vga = Some(card.kind);
    }
    let vnc = cx.take(&groups::VNC).into_iter().map(plain).collect();
    cx.spec.display.vnc = vnc;
    cx.spec.display.spice = cx.take_merged(&groups::SPICE).map(plain);
    Ok(())
}

/// A value of `-vga`.
pub struct VgaCard {
    /// Name.
    pub name: &'static str,
    kind: VgaKind,
    /// Class of the device.
    driver: Option<&'static str>,
    /// Description.
    pub text: &'static str,
}

impl VgaCard {
    /// Whether this program has it.
    pub fn available(&self) -> bool {
        self.driver.is_none_or(|d| class_by_name(d).is_some())
    }
}

const fn card(name: &'static str, kind: VgaKind, driver: &'static str, text: &'static str) -> VgaCard {
    VgaCard { name, kind, driver: Some(driver), text }
}

/// Values of `-vga`, in the order of its help.
pub static VGA_CARDS: [VgaCard; 6] = [
    VgaCard { name: "none", kind: VgaKind::None, driver: None, text: "no graphic card" },
    card("std", VgaKind::Std, "VGA", "standard VGA"),
    card("cirrus", VgaKind::Cirrus, "cirrus-vga", "Cirrus VGA"),
    card("vmware", VgaKind::Vmware, "vmware-svga", "VMWare SVGA"),
    card("qxl", VgaKind::Qxl, "qxl-vga", "QXL VGA"),
    card("virtio", VgaKind::Virtio, "virtio-vga", "Virtio VGA"),
];
