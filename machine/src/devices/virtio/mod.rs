//! Virtio transports and devices.
