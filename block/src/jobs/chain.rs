//! Walking backing chains.

use crate::error::Errno;
use crate::node::Node;
use std::sync::Arc;

/// What a range holds, seen through a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// No layer above the base says anything.
    Nothing,
    /// Zeroes.
    Zero,
    /// Data.
    Data,
}

/// What the layers from `top` down to (without) `base` say about the start of `[off, off+len)`, and for how many bytes.
/// `base` = `None`: all layers.
pub(crate) fn status_above(
    top: &Arc<Node>,
    base: Option<&Arc<Node>>,
    off: u64,
    len: u64,
) -> Result<(Holds, u64), Errno> {
    let (mut node, mut n) = (top.clone(), len);
    loop {
        if base.is_some_and(|b| Arc::ptr_eq(b, &node)) {
            return Ok((Holds::Nothing, n));
        }
        let have = node.len().saturating_sub(off);
        if have == 0 {
            // A shorter layer shows zeroes, unless it is transparent there; it always is zero for those above.
            return Ok((Holds::Zero, n));
        }
        let (s, m) = node.driver().block_status(off, n.min(have))?;
        n = m;
        if s.allocated {
            return Ok((if s.zero { Holds::Zero } else { Holds::Data }, n));
        }
        match node.backing() {
            Some(b) => node = b,
            None => return Ok((Holds::Nothing, n)),
        }
    }
}

/// The nodes from `top` down to (without) `base`.
pub(crate) fn nodes(top: &Arc<Node>, base: Option<&Arc<Node>>) -> Option<Vec<Arc<Node>>> {
    let mut list = Vec::new();
    let mut at = Some(top.clone());
    while let Some(n) = at {
        if base.is_some_and(|b| Arc::ptr_eq(b, &n)) {
            return Some(list);
        }
        at = n.backing();
        list.push(n);
    }
    base.is_none().then_some(list)
}

/// The lowest image of a chain.
pub(crate) fn bottom(top: &Arc<Node>) -> Arc<Node> {
    let mut n = top.clone();
    while let Some(b) = n.backing() {
        n = b;
    }
    n
}
