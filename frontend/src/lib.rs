//! Command line of rqemu.
