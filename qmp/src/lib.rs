//! QMP and HMP monitors.
