//! USB, displays, TPM, objects.

use super::Action::{Call, Opts};
use super::{arg, flag, OptDef};
use crate::groups;
use crate::lower::{device, display, machine};

/// "USB convenience options".
pub const USB: &[OptDef] = &[
    flag("usb", Call(machine::usb), "-usb            add the board's USB controller"),
    arg(
        "usbdevice",
        Call(device::usbdevice),
        "-usbdevice name add a USB device: tablet, mouse, keyboard, wacom-tablet",
    ),
];

/// "Display options".
pub const DISPLAY: &[OptDef] = &[
    arg(
        "display",
        Call(display::display),
        "\
-display spice-app[,gl=on|off]
-display sdl[,gl=on|core|es|off][,grab-mod=<mod>][,show-cursor=on|off]
            [,window-close=on|off]
-display gtk[,full-screen=on|off][,gl=on|off][,grab-on-hover=on|off]
            [,show-tabs=on|off][,show-cursor=on|off][,window-close=on|off]
            [,show-menubar=on|off]
-display vnc=<display>[,<optargs>]
-display curses[,charset=<encoding>]
-display egl-headless[,rendernode=<file>]
-display dbus[,addr=<dbusaddr>]
             [,gl=on|core|es|off][,rendernode=<file>]
-display none
                where the guest's screen is shown ('-display help' lists what is built in)",
    ),
    flag(
        "nographic",
        Call(display::nographic),
        "-nographic      no display; serial line and monitor share the terminal",
    ),
    arg(
        "spice",
        Opts(&groups::SPICE),
        "\
-spice [port=port][,tls-port=secured-port][,x509-dir=<dir>]
       [,x509-key-file=<file>][,x509-key-password=<file>]
       [,x509-cert-file=<file>][,x509-cacert-file=<file>]
       [,x509-dh-key-file=<file>][,addr=addr]
       [,ipv4=on|off][,ipv6=on|off][,unix=on|off]
       [,tls-ciphers=<list>]
       [,tls-channel=[main|display|cursor|inputs|record|playback]]
       [,plaintext-channel=[main|display|cursor|inputs|record|playback]]
       [,sasl=on|off][,disable-ticketing=on|off]
       [,password=<string>][,password-secret=<secret-id>]
       [,image-compression=[auto_glz|auto_lz|quic|glz|lz|off]]
       [,jpeg-wan-compression=[auto|never|always]]
       [,zlib-glz-wan-compression=[auto|never|always]]
       [,streaming-video=[off|all|filter]][,disable-copy-paste=on|off]
       [,disable-agent-file-xfer=on|off][,agent-mouse=[on|off]]
       [,playback-compression=[on|off]][,seamless-migration=[on|off]]
       [,gl=[on|off]][,rendernode=<file>]",
    ),
    flag("portrait", Call(display::rotate), "-portrait       turn the screen (PXA LCD only)"),
    arg("rotate", Call(display::rotate), "-rotate <deg>   turn the screen (PXA LCD only)"),
    arg(
        "vga",
        Call(display::vga),
        "-vga [std|cirrus|vmware|qxl|xenfb|tcx|cg3|virtio|none]\n                video card",
    ),
    flag("full-screen", Call(display::full_screen), "-full-screen    start in full screen"),
    arg("vnc", Call(display::vnc), "-vnc <display>  the same as -display vnc=<display>"),
];

/// "TPM device options".
pub const TPM: &[OptDef] = &[arg(
    "tpmdev",
    Call(device::tpmdev),
    "\
-tpmdev passthrough,id=id[,path=path][,cancel-path=path]
                the host's TPM
-tpmdev emulator,id=id,chardev=dev
                a TPM emulator on a chardev",
)];

/// "Generic object creation".
pub const OBJECT: &[OptDef] = &[arg(
    "object",
    Call(device::object),
    "\
-object TYPENAME[,PROP1=VALUE1,...]
                create an object ('-object help' lists types); id= names it under /objects",
)];
