//! Statistics of an accelerator, as `query-stats` shows them.

/// What a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatKind {
    /// Only grows.
    Cumulative,
    /// The state now.
    Instant,
    /// The highest so far.
    Peak,
    /// Buckets of equal size.
    LinearHistogram,
    /// Buckets of powers of two.
    Log2Histogram,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatUnit {
    /// Things.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Clock cycles.
    Cycles,
    /// Yes or no.
    Boolean,
}

/// One statistic with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name.
    pub name: String,
    /// What the values say.
    pub kind: StatKind,
    /// Unit.
    pub unit: StatUnit,
    /// Base of the scale: 2 or 10.
    pub base: i8,
    /// The unit is multiplied by `base` to this power.
    pub exponent: i16,
    /// Size of the buckets of a linear histogram.
    pub bucket_size: u32,
    /// One value, or one per bucket.
    pub values: Vec<u64>,
}
