//! shift
