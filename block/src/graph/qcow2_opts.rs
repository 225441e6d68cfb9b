//! Run-time options of the qcow2 driver.

use super::opts::Opts;
use crate::error::{BlockError, Result};
use crate::qcow2;
use serde_json::Value;

/// `overlap-check`: writes are always checked against all metadata in memory, which is more than any mode asks for
/// except `all`'s look into inactive tables.
fn overlap_check(opts: &mut Opts) -> Result<()> {
    const MODES: &[(&str, ())] = &[("none", ()), ("constant", ()), ("cached", ()), ("all", ())];
    if let Some(Value::Object(_)) = opts.peek("overlap-check") {
        let mut o = opts.dict("overlap-check")?;
        o.choice("template", MODES)?;
        for bit in [
            "main-header",
            "active-l1",
            "active-l2",
            "refcount-table",
            "refcount-block",
            "snapshot-table",
            "inactive-l1",
            "inactive-l2",
            "bitmap-directory",
        ] {
            o.boolean(bit)?;
        }
        return o.finish("format", "qcow2");
    }
    match opts.string("overlap-check")? {
        Some(m) if !MODES.iter().any(|x| x.0 == m) => Err(BlockError::text(format!(
            "Unsupported value '{m}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, \
             cached, all"
        ))),
        _ => Ok(()),
    }
}

/// Options of the qcow2 driver itself.
pub(super) fn open_options(opts: &mut Opts, read_only: bool) -> Result<qcow2::OpenOpts> {
    // Refcounts are always written in order here, which is what `lazy-refcounts=off` asks for and satisfies `on`.
    let lazy = opts.boolean("lazy-refcounts")?.unwrap_or(false);
    let mut pass = [true, true, false];
    for (p, key) in
        pass.iter_mut().zip(["pass-discard-request", "pass-discard-snapshot", "pass-discard-other"])
    {
        *p = opts.boolean(key)?.unwrap_or(*p);
    }
    overlap_check(opts)?;
    for key in ["data-file", "encrypt"] {
        if opts.take(key).is_some() {
            return Err(BlockError::Unsupported(format!("qcow2 option '{key}'")));
        }
    }
    let total = opts.number("cache-size")?;
    let l2 = opts.number("l2-cache-size")?;
    let rc = opts.number("refcount-cache-size")?;
    if let (Some(t), Some(l), Some(_)) = (total, l2, rc) {
        return Err(BlockError::text(if l > t {
            "l2-cache-size may not exceed cache-size"
        } else {
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"
        }));
    }
    if let (Some(t), Some(l)) = (total, l2) {
        if l > t {
            return Err(BlockError::text("l2-cache-size may not exceed cache-size"));
        }
    }
    if let Some(n) = opts.number("l2-cache-entry-size")? {
        if !n.is_power_of_two() || n < 512 {
            return Err(BlockError::text(
                "L2 cache entry size must be a power of two between 512 and the cluster size (65536)",
            ));
        }
        return Err(BlockError::Unsupported("qcow2 option 'l2-cache-entry-size'".into()));
    }
    if opts.number("cache-clean-interval")?.is_some_and(|n| n != 0) {
        return Err(BlockError::Unsupported("qcow2 option 'cache-clean-interval'".into()));
    }
    let l2_cache = l2.or(total.map(|t| t.saturating_sub(rc.unwrap_or(0)))).unwrap_or(qcow2::DEFAULT_L2_CACHE);
    Ok(qcow2::OpenOpts { read_only, l2_cache: l2_cache.min(1 << 32), lazy, pass })
}
