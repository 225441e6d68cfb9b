//! Parts: objects with a place in the QOM tree whose behaviour lives in the device that they belong to.

use std::any::Any;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::device::{Cx, Device};
use crate::{qerr, QResult};

/// A part without behaviour of its own.
pub struct PassivePart;

impl Device for PassivePart {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Reads a saved state; what does not fit is an error.
pub(crate) fn load_state<T: DeserializeOwned>(section: &str, state: &Value) -> QResult<T> {
    T::deserialize(state).map_err(|e| qerr!("Bad state of section '{section}': {e}"))
}

/// Writes a state.
pub(crate) fn save_state<T: serde::Serialize>(section: &str, state: &T) -> QResult<Value> {
    serde_json::to_value(state).map_err(|e| qerr!("Cannot save section '{section}': {e}"))
}

/// Implements [`crate::state::SaveState`] for a device whose state is its field `$field`; `$after` runs after a
/// load, to bring lines and timers in step.
macro_rules! save_field {
    ($dev:ty, $section:literal, $version:literal, $field:ident, $after:expr) => {
        impl crate::state::SaveState for $dev {
            fn section(&self) -> (&'static str, u32) {
                ($section, $version)
            }
            fn save(&mut self, _cx: &mut crate::device::Cx<'_>) -> crate::QResult<serde_json::Value> {
                crate::devices::legacy::part::save_state($section, &self.$field)
            }
            fn load(
                &mut self,
                cx: &mut crate::device::Cx<'_>,
                _version: u32,
                state: &serde_json::Value,
            ) -> crate::QResult<()> {
                self.$field = crate::devices::legacy::part::load_state($section, state)?;
                let after: fn(&mut $dev, &mut crate::device::Cx<'_>) = $after;
                after(self, cx);
                Ok(())
            }
        }
    };
}
pub(crate) use save_field;
