//! PC legacy devices: interrupt controllers, timers, RTC, keyboard, serial, parallel.

pub mod i8042;
pub mod keys;
#[cfg(test)]
mod oracle;
pub mod part;
pub mod pit;
pub mod rtc;
pub mod serial;
