//! PC legacy devices: interrupt controllers, timers, RTC, keyboard, serial, parallel.
