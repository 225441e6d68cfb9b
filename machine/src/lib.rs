//! Machine model of rqemu.
