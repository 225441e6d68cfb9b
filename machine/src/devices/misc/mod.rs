//! Small devices: debug ports, panic notifier.
