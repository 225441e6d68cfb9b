//! PC legacy devices: interrupt controllers, timers, RTC, keyboard, serial, parallel.

#[cfg(test)]
mod oracle;
pub mod part;
pub mod rtc;
pub mod serial;
