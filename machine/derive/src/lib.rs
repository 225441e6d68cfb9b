//! Derive macros for the device registry.
