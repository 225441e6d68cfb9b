//! Flattened device trees (Devicetree Specification 0.4, chapter 5).
//!
//! The layout is that of trees that were built by inserting: within a node the newest property and the newest child
//! come first, names are stored in the order of their first use.

/// A node under construction.
#[derive(Clone, Debug, Default)]
pub struct Node {
    name: String,
    props: Vec<(&'static str, Vec<u8>)>,
    /// Properties that were added when the tree was complete.
    late: Vec<(&'static str, Vec<u8>)>,
    children: Vec<Node>,
}

impl Node {
    /// A node without contents.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a property of raw bytes.
    pub fn bytes(mut self, name: &'static str, value: &[u8]) -> Self {
        self.props.push((name, value.to_vec()));
        self
    }

    /// Adds a text.
    pub fn text(self, name: &'static str, value: &str) -> Self {
        let mut v = value.as_bytes().to_vec();
        v.push(0);
        self.bytes(name, &v)
    }

    /// Adds a text after everything else.
    pub fn late_text(mut self, name: &'static str, value: &str) -> Self {
        let mut v = value.as_bytes().to_vec();
        v.push(0);
        self.late.push((name, v));
        self
    }

    /// Adds 32-bit cells.
    pub fn cells(self, name: &'static str, cells: &[u32]) -> Self {
        let v: Vec<u8> = cells.iter().flat_map(|c| c.to_be_bytes()).collect();
        self.bytes(name, &v)
    }

    /// Adds `reg` with one address and size, two cells each.
    pub fn reg(self, base: u64, size: u64) -> Self {
        let v: Vec<u8> = [base, size].iter().flat_map(|c| c.to_be_bytes()).collect();
        self.bytes("reg", &v)
    }

    /// Adds a child.
    pub fn child(&mut self, node: Node) {
        self.children.push(node);
    }
}

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;
const HEADER: u32 = 40;
/// The header, filled up to 8 bytes, and the empty list of reserved memory behind it.
const RESERVED_AT: u32 = 48;
const STRUCTURE_AT: u32 = 64;
const VERSION: u32 = 17;
const COMPATIBLE_VERSION: u32 = 16;

/// Writes the tree; `size` is what the header gives as its size, for those who want to insert more.
pub fn flatten(root: &Node, size: u32) -> Vec<u8> {
    let mut names = Names::default();
    names.collect(root, false);
    names.collect(root, true);
    let mut structure = Vec::new();
    write(root, &names, &mut structure);
    word(END, &mut structure);
    let strings_at = STRUCTURE_AT + structure.len() as u32;
    let mut out = Vec::with_capacity(STRUCTURE_AT as usize + structure.len() + names.text.len());
    for v in [
        MAGIC,
        size,
        STRUCTURE_AT,
        strings_at,
        RESERVED_AT,
        VERSION,
        COMPATIBLE_VERSION,
        0,
        names.text.len() as u32,
        structure.len() as u32,
    ] {
        word(v, &mut out);
    }
    debug_assert_eq!(out.len(), HEADER as usize);
    out.resize(STRUCTURE_AT as usize, 0);
    out.extend_from_slice(&structure);
    out.extend_from_slice(&names.text);
    out
}

/// Names of properties, one after the other.
#[derive(Default)]
struct Names {
    text: Vec<u8>,
    at: Vec<(&'static str, u32)>,
}

impl Names {
    fn collect(&mut self, node: &Node, late: bool) {
        for (name, _) in if late { &node.late } else { &node.props } {
            if self.offset(name).is_none() {
                self.at.push((name, self.text.len() as u32));
                self.text.extend_from_slice(name.as_bytes());
                self.text.push(0);
            }
        }
        node.children.iter().for_each(|c| self.collect(c, late));
    }

    fn offset(&self, name: &str) -> Option<u32> {
        self.at.iter().find(|(n, _)| *n == name).map(|(_, at)| *at)
    }
}

fn word(v: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&v.to_be_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

fn write(node: &Node, names: &Names, out: &mut Vec<u8>) {
    word(BEGIN_NODE, out);
    out.extend_from_slice(node.name.as_bytes());
    out.push(0);
    pad(out);
    for (name, value) in node.props.iter().chain(&node.late).rev() {
        word(PROP, out);
        word(value.len() as u32, out);
        word(names.offset(name).unwrap_or(0), out);
        out.extend_from_slice(value);
        pad(out);
    }
    node.children.iter().rev().for_each(|c| write(c, names, out));
    word(END_NODE, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let mut root = Node::new("").cells("a", &[1]).text("b", "xy");
        root.child(Node::new("n@1").bytes("a", &[]));
        root.child(Node::new("m"));
        let t = flatten(&root, 4096);
        let at = |i: usize| u32::from_be_bytes([t[i], t[i + 1], t[i + 2], t[i + 3]]);
        assert_eq!((at(0), at(4), at(8), at(16), at(20)), (MAGIC, 4096, 64, 48, 17));
        let strings = at(12) as usize;
        assert_eq!(&t[strings..], b"a\0b\0");
        // Root, then the newest property (`b`), then `a`.
        assert_eq!((at(64), at(72), at(76), at(80)), (BEGIN_NODE, PROP, 3, 2));
        assert_eq!(&t[84..88], b"xy\0\0");
        assert_eq!((at(88), at(92), at(96), at(100)), (PROP, 4, 0, 1));
        // The newest child first.
        assert_eq!((at(104), &t[108..110]), (BEGIN_NODE, &b"m\0"[..]));
        assert_eq!((at(112), at(116), &t[120..124]), (END_NODE, BEGIN_NODE, &b"n@1\0"[..]));
        assert_eq!(at(strings - 4), END);
    }
}
