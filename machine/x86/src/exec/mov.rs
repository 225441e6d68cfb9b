//! mov
