//! Graphics.
