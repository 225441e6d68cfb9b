//! Displays, video cards, audio, USB sugar.

use super::loc::Loc;
use super::value::Dict;

/// `-vga`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VgaKind {
    /// No card.
    None,
    /// Bochs VBE.
    Std,
    /// Cirrus GD5446.
    Cirrus,
    /// VMware SVGA II.
    Vmware,
    /// QXL.
    Qxl,
    /// virtio-vga.
    Virtio,
}

/// `-display`, `-nographic`, `-curses`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DisplaySpec {
    /// `none`, `gtk`, `sdl`, `curses`, `egl-headless`, `dbus`, `spice-app`; `None` = the default
    /// (a VNC server when one is compiled in and no graphical display is).
    pub kind: Option<String>,
    /// Options, typed.
    pub props: Dict,
    /// `-nographic`.
    pub nographic: bool,
    /// `-full-screen`.
    pub full_screen: bool,
    /// `-vnc` / `-display vnc=`, each `display,opts`.
    pub vnc: Vec<OptsSpec>,
    /// `-spice`, merged.
    pub spice: Option<OptsSpec>,
    /// `-k`.
    pub keymap: Option<String>,
}

/// Options of one area as an ordered dictionary, for parts that check them themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct OptsSpec {
    /// `id=`.
    pub id: Option<String>,
    /// Everything else.
    pub props: Dict,
    /// Error prefix.
    pub loc: Loc,
}
