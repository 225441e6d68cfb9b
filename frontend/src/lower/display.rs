//! Displays and video cards.

use rqemu_machine::qerr;
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
        let Some(kind) = vga_kind(&name) else {
            return Err(Stop::error(&Loc::NONE, qerr!("unknown vga type: {name}")));
        };
        cx.spec.vga = Some(kind);
    }
    let vnc = cx.take(&groups::VNC).into_iter().map(plain).collect();
    cx.spec.display.vnc = vnc;
    cx.spec.display.spice = cx.take_merged(&groups::SPICE).map(plain);
    Ok(())
}

fn vga_kind(name: &str) -> Option<VgaKind> {
    Some(match name {
        "none" => VgaKind::None,
        "std" => VgaKind::Std,
        "cirrus" => VgaKind::Cirrus,
        "vmware" => VgaKind::Vmware,
        "qxl" => VgaKind::Qxl,
        "virtio" => VgaKind::Virtio,
        _ => return None,
    })
}
