//! PC legacy devices: interrupt controllers, timers, RTC, keyboard, serial, parallel.

pub mod i8042;
#[cfg(test)]
mod oracle;
pub mod keys;
pub mod part;
pub mod rtc;
pub mod serial;
