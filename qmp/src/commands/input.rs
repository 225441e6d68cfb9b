//! Keys, pointers and pictures.

use crate::monitors::MonitorCx;
use crate::types::{wrong_type, Describe, FromQapi, Path, Schema};
use crate::{qapi_enum, qapi_struct, qapi_union};
use rqemu_machine::devices::legacy::keys;
use rqemu_machine::ui::{screendump, InputEvent as Event};
use rqemu_machine::{qerr, QResult};
use serde_json::Value;

/// A key by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QKeyCode(pub u16);

impl FromQapi for QKeyCode {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        let Value::String(name) = value else { return Err(wrong_type(at, "string")) };
        let bad = || qerr!("Parameter '{}' does not accept value '{name}'", at.leaf());
        keys::number_of(&name).map(|n| Self(n.into())).ok_or_else(bad)
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
        keys::name_of(u8::try_from(self.0).ok()?).map(Into::into)
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
    /// Buttons of a pointer, in the order of their numbers ([`Event::Button`]).
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
    }
    /// Axes of a pointer, in the order of their numbers.
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
    /// Number of the key; numbers that no key has are 0, which no device sends.
    fn code(&self) -> u16 {
        match self {
            Self::Number(n) => u8::try_from(n.data).map_or(0, u16::from),
            Self::Qcode(q) => q.data.0,
        }
    }
}

impl InputEvent {
    fn lower(&self) -> Event {
        match self {
            Self::Key(k) => Event::Key { code: k.data.key.code(), down: k.data.down },
            Self::Btn(b) => Event::Button { button: b.data.button as u8, down: b.data.down },
            // As in QEMU only the low 32 bits count.
            Self::Rel(r) => Event::Rel { axis: r.data.axis as u8, value: r.data.value as i32 },
            Self::Abs(a) => Event::Abs { axis: a.data.axis as u8, value: a.data.value as i32 },
        }
    }
}

pub(crate) fn send_key(cx: &mut MonitorCx<'_, '_>, args: SendKey) -> QResult<()> {
    let codes: Vec<u16> = args.keys.iter().map(KeyValue::code).collect();
    cx.m.send_keys(&codes, args.hold_time);
    Ok(())
}

pub(crate) fn input_send_event(cx: &mut MonitorCx<'_, '_>, args: InputSendEvent) -> QResult<()> {
    let events: Vec<Event> = args.events.iter().map(InputEvent::lower).collect();
    cx.m.input_send_event(args.device.as_deref(), args.head, &events)
}

pub(crate) fn screendump(cx: &mut MonitorCx<'_, '_>, args: Screendump) -> QResult<()> {
    let format = match args.format {
        Some(ImageFormat::Png) => screendump::ImageFormat::Png,
        Some(ImageFormat::Ppm) | None => screendump::ImageFormat::Ppm,
    };
    screendump::screendump(cx.m, &args.filename, format, args.device.as_deref(), args.head)
}

pub(crate) fn query_mice(cx: &mut MonitorCx<'_, '_>, _: crate::types::Empty) -> QResult<Vec<MouseInfo>> {
    let info = |m: rqemu_machine::ui::input::MouseInfo| MouseInfo {
        name: m.name.into(),
        index: m.index.into(),
        current: m.current,
        absolute: m.absolute,
    };
    Ok(cx.m.query_mice().into_iter().map(info).collect())
}
