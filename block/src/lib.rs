//! Block layer of rqemu.
