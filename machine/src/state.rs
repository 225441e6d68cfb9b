//! Saved state of devices.
//!
//! Each device keeps a versioned state structure apart from its run-time form; this trait moves it through a
//! self-describing value. Unknown or left-over fields are errors.

use serde_json::Value;

use crate::device::Cx;
use crate::QResult;

/// Save and load.
pub trait SaveState {
    /// Section name, as QEMU has it (`serial`, `PIIX3`, ...), and version.
    fn section(&self) -> (&'static str, u32);
    /// The state now.
    fn save(&mut self, cx: &mut Cx<'_>) -> QResult<Value>;
    /// Takes over a saved state.
    fn load(&mut self, cx: &mut Cx<'_>, version: u32, state: &Value) -> QResult<()>;
}
