//! Keys, pointers and pictures.

use crate::keyqueue::{KeyQueue, Step};
use crate::monitors::MonitorCx;
use crate::types::{wrong_type, Describe, FromQapi, Path, Schema};
use crate::{qapi_enum, qapi_struct, qapi_union};
use rqemu_machine::device::DevId;
use rqemu_machine::error::strerror;
use rqemu_machine::ui::{InputEvent as Event, InputKinds, Picture};
use rqemu_machine::{qerr, QError, QResult};
use serde_json::Value;
use std::io::Write;

use super::keys;

/// How long `send-key` holds keys, in milliseconds, unless told.
const HOLD_MS: i64 = 100;

/// A key by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QKeyCode(pub u16);

impl FromQapi for QKeyCode {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        let Value::String(name) = value else { return Err(wrong_type(at, "string")) };
        let bad = || qerr!("Parameter '{}' does not accept value '{name}'", at.leaf());
        keys::number(&name).map(Self).ok_or_else(bad)
    }
}

impl Describe for QKeyCode {
    fn describe(schema: &mut Schema) -> String {
        let names: Vec<&str> = keys::KEYS.iter().map(|k| k.0).collect();
        schema.enumeration("QKeyCode", &names)
    }
}

impl crate::types::ToQapi for QKeyCode {
    fn to_qapi(self) -> Option<Value> {
        keys::KEYS.iter().find(|k| k.1 == self.0).map(|k| k.0.into())
    }
}

qapi_struct! {
    /// A key by number.
    pub struct KeyNumber {
        /// Number.
        data: i64,
    }
    /// A key by name.
    pub struct KeyName {
        /// Name.
        data: QKeyCode,
    }
    /// Arguments of `send-key`.
    pub struct SendKey {
        /// Keys, pressed in this order.
        keys: Vec<KeyValue>,
        /// Milliseconds until they are released.
        hold_time: Option<i64>,
    }
    /// A key goes down or up.
    pub struct InputKeyEvent {
        /// Key.
        key: KeyValue,
        /// Down.
        down: bool,
    }
    /// A pointer button goes down or up.
    pub struct InputBtnEvent {
        /// Button.
        button: InputButton,
        /// Down.
        down: bool,
    }
    /// A pointer moves.
    pub struct InputMoveEvent {
        /// Axis.
        axis: InputAxis,
        /// Distance or position.
        value: i64,
    }
    /// Wraps a key event.
    pub struct KeyEventData {
        /// The event.
        data: InputKeyEvent,
    }
    /// Wraps a button event.
    pub struct BtnEventData {
        /// The event.
        data: InputBtnEvent,
    }
    /// Wraps a motion.
    pub struct MoveEventData {
        /// The event.
        data: InputMoveEvent,
    }
    /// Arguments of `input-send-event`.
    pub struct InputSendEvent {
        /// Display device.
        device: Option<String>,
        /// Head of the display device.
        head: Option<i64>,
        /// Events.
        events: Vec<InputEvent>,
    }
    /// Element of `query-mice`.
    pub struct MouseInfo {
        /// Name.
        name: String,
        /// Number.
        index: i64,
        /// It gets the events.
        current: bool,
        /// It reports positions.
        absolute: bool,
    }
    /// Arguments of `screendump`.
    pub struct Screendump {
        /// File.
        filename: String,
        /// Display device.
        device: Option<String>,
        /// Head of the display device.
        head: Option<i64>,
        /// Format.
        format: Option<ImageFormat>,
    }
}

qapi_union! {
    /// A key.
    pub union KeyValue("type") {
        "number" => Number(KeyNumber),
        "qcode" => Qcode(KeyName),
    }
    /// An event.
    pub union InputEvent("type") {
        "key" => Key(KeyEventData),
        "btn" => Btn(BtnEventData),
        "rel" => Rel(MoveEventData),
        "abs" => Abs(MoveEventData),
    }
}

qapi_enum! {
    /// Buttons of a pointer.
    pub enum InputButton {
        Left = "left",
        Middle = "middle",
        Right = "right",
        WheelUp = "wheel-up",
        WheelDown = "wheel-down",
        Side = "side",
        Extra = "extra",
        WheelLeft = "wheel-left",
        WheelRight = "wheel-right",
        Touch = "touch",
    }
    /// Axes of a pointer.
    pub enum InputAxis {
        X = "x",
        Y = "y",
    }
    /// Picture formats.
    pub enum ImageFormat {
        Ppm = "ppm",
        Png = "png",
    }
}

impl KeyValue {
    fn code(&self) -> u16 {
        match self {
            Self::Number(n) => (n.data & 0xFF) as u16,
            Self::Qcode(q) => q.data.0,
        }
    }
}

pub(crate) fn send_key(cx: &mut MonitorCx<'_, '_>, args: SendKey) -> QResult<()> {
    let codes: Vec<u16> = args.keys.iter().map(KeyValue::code).collect();
    press(cx, &codes, args.hold_time.unwrap_or(HOLD_MS));
    Ok(())
}

/// Presses keys in order and releases them in the opposite order after a while.
pub(crate) fn press(cx: &mut MonitorCx<'_, '_>, codes: &[u16], hold_ms: i64) {
    let ms = u64::try_from(hold_ms).ok().filter(|ms| *ms > 0).unwrap_or(HOLD_MS as u64);
    let down = codes.iter().map(|&code| Step::Key(code, true));
    let up = codes.iter().rev().map(|&code| Step::Key(code, false));
    cx.keys.push(down.chain([Step::Wait(ms)]).chain(up));
    KeyQueue::run(cx.keys, cx.m);
}

/// The device that takes events of a kind: the youngest one.
pub(crate) fn sink(m: &mut rqemu_machine::Machine, takes: impl Fn(InputKinds) -> bool) -> Option<DevId> {
    let ids = m.tree.ids();
    ids.into_iter()
        .rev()
        .find(|id| m.with_dev(*id, |d, _| d.input().map(|i| i.takes())).flatten().is_some_and(&takes))
}

/// Gives a device an event, and the end of the group if `sync`.
pub(crate) fn deliver(m: &mut rqemu_machine::Machine, dev: DevId, event: Event, sync: bool) {
    m.with_dev(dev, |d, cx| {
        if let Some(i) = d.input() {
            i.event(cx, event);
            if sync {
                i.sync(cx);
            }
        }
    });
}

pub(crate) fn input_send_event(cx: &mut MonitorCx<'_, '_>, args: InputSendEvent) -> QResult<()> {
    let mut events = Vec::new();
    for event in &args.events {
        let event = match event {
            InputEvent::Key(k) => Event::Key { code: k.data.key.code(), down: k.data.down },
            InputEvent::Btn(b) => Event::Button { button: button(b.data.button)?, down: b.data.down },
            InputEvent::Rel(r) => Event::Rel { axis: axis(r.data.axis), value: r.data.value as i32 },
            InputEvent::Abs(a) => Event::Abs { axis: axis(a.data.axis), value: a.data.value as i32 },
        };
        let kind = move |k: InputKinds| match event {
            Event::Key { .. } => k.keys,
            Event::Button { .. } => k.rel || k.abs,
            Event::Rel { .. } => k.rel,
            Event::Abs { .. } => k.abs,
        };
        let dev = sink(cx.m, kind).ok_or_else(|| match event {
            Event::Key { .. } => qerr!("Input handler not found for event type key"),
            Event::Button { .. } => qerr!("Input handler not found for event type btn"),
            Event::Rel { .. } => qerr!("Input handler not found for event type rel"),
            Event::Abs { .. } => qerr!("Input handler not found for event type abs"),
        })?;
        events.push((dev, event));
    }
    let last = events.len().saturating_sub(1);
    for (i, (dev, event)) in events.into_iter().enumerate() {
        deliver(cx.m, dev, event, i == last);
    }
    Ok(())
}

fn axis(axis: InputAxis) -> u8 {
    u8::from(axis == InputAxis::Y)
}

fn button(button: InputButton) -> QResult<u8> {
    Ok(match button {
        InputButton::Left => 0,
        InputButton::Middle => 1,
        InputButton::Right => 2,
        InputButton::WheelUp => 3,
        InputButton::WheelDown => 4,
        InputButton::Side => 5,
        InputButton::Extra => 6,
        _ => return Err(qerr!("Button {} is not supported", button.as_str())),
    })
}

pub(crate) fn screendump(cx: &mut MonitorCx<'_, '_>, args: Screendump) -> QResult<()> {
    let dev = match &args.device {
        Some(name) => {
            let missing = || QError::device_not_found(name);
            Some(super::device::find(cx, name).map_err(|_| missing())?)
        }
        None if args.head.is_some() => {
            return Err(qerr!("'head' must be specified together with 'device'"));
        }
        None => None,
    };
    let candidates = dev.map_or_else(|| cx.m.tree.ids(), |d| vec![d]);
    let picture = candidates
        .into_iter()
        .find_map(|id| cx.m.with_dev(id, |d, cx| d.display().map(|s| s.snapshot(cx)))?)
        .ok_or_else(|| match &args.device {
            Some(name) => {
                qerr!("Device '{name}' (head {}) is not bound to a QemuConsole", args.head.unwrap_or(0))
            }
            None => qerr!("There is no console to take a screendump from"),
        })?;
    let name = &args.filename;
    let file =
        std::fs::File::create(name).map_err(|e| qerr!("failed to open file '{name}': {}", strerror(&e)))?;
    let out = std::io::BufWriter::new(file);
    let written = match args.format.unwrap_or(ImageFormat::Ppm) {
        ImageFormat::Ppm => write_ppm(out, &picture),
        ImageFormat::Png => write_png(out, &picture),
    };
    written.map_err(|e| {
        // Half a picture helps nobody.
        let _ = std::fs::remove_file(name);
        qerr!("failed to write file '{name}': {}", strerror(&e))
    })
}

fn write_ppm(mut out: impl Write, p: &Picture) -> std::io::Result<()> {
    write!(out, "P6\n{} {}\n255\n", p.width, p.height)?;
    out.write_all(&p.rgb)?;
    out.flush()
}

fn write_png(out: impl Write, p: &Picture) -> std::io::Result<()> {
    let mut encoder = png::Encoder::new(out, p.width, p.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&p.rgb)?;
    Ok(writer.finish()?)
}

pub(crate) fn query_mice(cx: &mut MonitorCx<'_, '_>, _: crate::types::Empty) -> QResult<Vec<MouseInfo>> {
    let mut list = Vec::new();
    for (index, id) in cx.m.tree.ids().into_iter().enumerate() {
        let kinds = cx.m.with_dev(id, |d, _| d.input().map(|i| i.takes())).flatten();
        let Some(kinds) = kinds.filter(|k| k.rel || k.abs) else { continue };
        let class = cx.m.tree.get(id).map_or("", |d| d.class.name);
        // The keyboard controller is the mouse's device here.
        let name = match class {
            "i8042" | "ps2-mouse" => "QEMU PS/2 Mouse",
            "usb-tablet" => "QEMU HID Tablet",
            "usb-mouse" => "QEMU HID Mouse",
            other => other,
        };
        list.push(MouseInfo { name: name.into(), index: index as i64, current: false, absolute: kinds.abs });
    }
    // The youngest one gets the events and stands first.
    list.reverse();
    if let Some(first) = list.first_mut() {
        first.current = true;
    }
    Ok(list)
}
