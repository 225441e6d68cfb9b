//! AML (ACPI Machine Language) emitter.
//!
//! A term is a small value that writes itself to a byte vector; terms nest by value and tuples of terms are
//! term lists, so a method body reads like ASL and costs no allocation of its own:
//!
//! ```ignore
//! Method("_STA", 0, false, (If(LEqual(N("VEND"), 0u64), Return(0u64)), Return(0x0fu64))).emit(&mut out);
//! ```
//!
//! Encodings follow ACPI 6.4, chapter 20 ("ACPI Machine Language Specification"). Integers take the shortest
//! form (`Zero`, `One`, byte, word, dword, qword prefix), package lengths the shortest that fits, so equal
//! trees give equal bytes.

/// Something that has an AML encoding.
pub trait Term {
    /// Appends the encoding to `out`.
    fn emit(&self, out: &mut Vec<u8>);
}

/// Runs `body` and puts the package length (which counts itself) in front of what it wrote.
pub fn with_pkg_length(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    body(out);
    let len = out.len() - at;
    out.splice(at..at, pkg_length(len));
}

/// Package length bytes for `len` bytes that follow them (ACPI 6.4, 20.2.4). Lengths are below 2^28.
fn pkg_length(len: usize) -> impl Iterator<Item = u8> {
    let extra = (1..=3).find(|n| len + n < limit(*n)).unwrap_or(4) - 1;
    let total = len + extra + 1;
    let mut bytes = [0u8; 4];
    if extra == 0 {
        bytes[0] = total as u8;
    } else {
        bytes[0] = (extra as u8) << 6 | (total & 0xf) as u8;
        for (i, byte) in bytes.iter_mut().enumerate().skip(1) {
            *byte = (total >> (4 + 8 * (i - 1))) as u8;
        }
    }
    bytes.into_iter().take(extra + 1)
}

/// First length that no longer fits into `n` package length bytes.
fn limit(n: usize) -> usize {
    if n == 1 {
        1 << 6
    } else {
        1 << (4 + 8 * (n - 1))
    }
}

/// Appends an integer constant in its shortest form.
pub fn int(out: &mut Vec<u8>, value: u64) {
    match value {
        0 => out.push(0x00),
        1 => out.push(0x01),
        2..=0xff => out.extend([0x0a, value as u8]),
        0x100..=0xffff => {
            out.push(0x0b);
            out.extend((value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0x0c);
            out.extend((value as u32).to_le_bytes());
        }
        _ => {
            out.push(0x0e);
            out.extend(value.to_le_bytes());
        }
    }
}

impl Term for u64 {
    fn emit(&self, out: &mut Vec<u8>) {
        int(out, *self);
    }
}

/// Dword constant whatever its value, so that a loader can patch an address into it.
pub struct DWordConst(pub u32);

impl Term for DWordConst {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x0c);
        out.extend(self.0.to_le_bytes());
    }
}

/// Already encoded bytes.
pub struct Raw<'a>(pub &'a [u8]);

impl Term for Raw<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

/// A term made by a closure: loops and conditions while emitting.
pub struct With<F: Fn(&mut Vec<u8>)>(pub F);

impl<F: Fn(&mut Vec<u8>)> Term for With<F> {
    fn emit(&self, out: &mut Vec<u8>) {
        (self.0)(out);
    }
}

impl<T: Term> Term for Option<T> {
    fn emit(&self, out: &mut Vec<u8>) {
        if let Some(term) = self {
            term.emit(out);
        }
    }
}

macro_rules! term_list {
    ($($name:ident)*) => {
        impl<$($name: Term),*> Term for ($($name,)*) {
            #[allow(non_snake_case, unused_variables)]
            fn emit(&self, out: &mut Vec<u8>) {
                let ($($name,)*) = self;
                $($name.emit(out);)*
            }
        }
    };
}
term_list!();
term_list!(A);
term_list!(A B);
term_list!(A B C);
term_list!(A B C D);
term_list!(A B C D E);
term_list!(A B C D E F);
term_list!(A B C D E F G);
term_list!(A B C D E F G H);
term_list!(A B C D E F G H I);
term_list!(A B C D E F G H I J);
term_list!(A B C D E F G H I J K);
term_list!(A B C D E F G H I J K L);

/// Appends a name string: optional `\` or `^`s, then dotted segments of up to four characters.
pub fn name_string(out: &mut Vec<u8>, path: &str) {
    let rest = path.trim_start_matches(['\\', '^']);
    out.extend_from_slice(&path.as_bytes()[..path.len() - rest.len()]);
    if rest.is_empty() {
        out.push(0x00);
        return;
    }
    match rest.split('.').count() {
        1 => {}
        2 => out.push(0x2e),
        n => out.extend([0x2f, n as u8]),
    }
    for seg in rest.split('.') {
        name_seg(out, seg);
    }
}

/// Appends one name segment, padded with `_` to four bytes.
fn name_seg(out: &mut Vec<u8>, seg: &str) {
    debug_assert!(seg.len() <= 4);
    let mut bytes = *b"____";
    for (to, from) in bytes.iter_mut().zip(seg.bytes()) {
        *to = from;
    }
    out.extend(bytes);
}

/// A reference to a named object.
pub struct N<'a>(pub &'a str);

impl Term for N<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        name_string(out, self.0);
    }
}

/// Method argument 0 to 6.
#[derive(Clone, Copy)]
pub struct Arg(pub u8);

impl Term for Arg {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x68 + self.0);
    }
}

/// Local variable 0 to 7.
#[derive(Clone, Copy)]
pub struct Local(pub u8);

impl Term for Local {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x60 + self.0);
    }
}

/// The debug object.
pub struct Debug;

impl Term for Debug {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x31]);
    }
}

/// Absent target operand of an arithmetic operator.
pub struct NoTarget;

impl Term for NoTarget {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x00);
    }
}

/// String constant (ASCII).
pub struct Str<'a>(pub &'a str);

impl Term for Str<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x0d);
        out.extend_from_slice(self.0.as_bytes());
        out.push(0);
    }
}

/// Compressed EISA id, for example `PNP0A03`.
pub struct EisaId(pub &'static str);

impl Term for EisaId {
    fn emit(&self, out: &mut Vec<u8>) {
        let b = self.0.as_bytes();
        debug_assert_eq!(b.len(), 7);
        let letter = |i: usize| u32::from(b[i] - 0x40) & 0x1f;
        let digit = |i: usize| char::from(b[i]).to_digit(16).unwrap_or(0);
        let id = letter(0) << 26
            | letter(1) << 21
            | letter(2) << 16
            | digit(3) << 12
            | digit(4) << 8
            | digit(5) << 4
            | digit(6);
        out.push(0x0c);
        out.extend(id.to_be_bytes());
    }
}

/// UUID constant in the byte order of ASL's `ToUUID`: text `aabbccdd-eeff-gghh-iijj-kkllmmnnoopp`.
pub struct Uuid(pub &'static str);

impl Term for Uuid {
    fn emit(&self, out: &mut Vec<u8>) {
        let mut raw = [0u8; 16];
        let digits = self.0.bytes().filter(|b| *b != b'-');
        for (i, b) in digits.enumerate() {
            raw[i / 2] = raw[i / 2] << 4 | char::from(b).to_digit(16).unwrap_or(0) as u8;
        }
        const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        Buffer(&ORDER.map(|i| raw[i])).emit(out);
    }
}

/// Buffer with the given contents.
pub struct Buffer<'a>(pub &'a [u8]);

impl Term for Buffer<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x11);
        with_pkg_length(out, |out| {
            int(out, self.0.len() as u64);
            out.extend_from_slice(self.0);
        });
    }
}

/// Package of `len` elements, of which the term list gives the first ones.
pub struct Package<T>(pub u8, pub T);

impl<T: Term> Term for Package<T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x12);
        with_pkg_length(out, |out| {
            out.push(self.0);
            self.1.emit(out);
        });
    }
}

/// `Name (path, value)`.
pub struct Name<'a, T>(pub &'a str, pub T);

impl<T: Term> Term for Name<'_, T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x08);
        name_string(out, self.0);
        self.1.emit(out);
    }
}

/// `Scope (path) { body }`.
pub struct Scope<'a, T>(pub &'a str, pub T);

impl<T: Term> Term for Scope<'_, T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x10);
        with_pkg_length(out, |out| {
            name_string(out, self.0);
            self.1.emit(out);
        });
    }
}

/// `Device (path) { body }`.
pub struct Device<'a, T>(pub &'a str, pub T);

impl<T: Term> Term for Device<'_, T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x82]);
        with_pkg_length(out, |out| {
            name_string(out, self.0);
            self.1.emit(out);
        });
    }
}

/// `Processor (path, id, 0, 0) { body }`: the deprecated object that old guests read.
pub struct Processor<'a, T>(pub &'a str, pub u8, pub T);

impl<T: Term> Term for Processor<'_, T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x83]);
        with_pkg_length(out, |out| {
            name_string(out, self.0);
            out.push(self.1);
            out.extend([0; 5]);
            self.2.emit(out);
        });
    }
}

/// `Method (path, argument count, serialized) { body }`.
pub struct Method<'a, T>(pub &'a str, pub u8, pub bool, pub T);

impl<T: Term> Term for Method<'_, T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x14);
        with_pkg_length(out, |out| {
            name_string(out, self.0);
            out.push(self.1 | u8::from(self.2) << 3);
            self.3.emit(out);
        });
    }
}

/// Address space of an operation region.
#[derive(Clone, Copy)]
pub enum Space {
    /// Physical memory.
    Memory = 0,
    /// I/O ports.
    Io = 1,
    /// PCI configuration space of the enclosing device.
    PciConfig = 2,
}

/// `OperationRegion (name, space, offset, length)`.
pub struct OpRegion<'a>(pub &'a str, pub Space, pub u64, pub u64);

impl Term for OpRegion<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x80]);
        name_string(out, self.0);
        out.push(self.1 as u8);
        int(out, self.2);
        int(out, self.3);
    }
}

/// Access width of a field list.
#[derive(Clone, Copy)]
pub enum Acc {
    /// One byte at a time.
    Byte = 1,
    /// Four bytes at a time.
    DWord = 3,
}

/// What happens to the bits of an access unit that a field does not cover.
#[derive(Clone, Copy)]
pub enum Update {
    /// They keep their value.
    Preserve = 0,
    /// They are written as zero.
    Zeros = 2,
}

/// `Field (region, access, lock, update) { entries }`; an entry is a name (empty: skipped bits) and its width
/// in bits.
pub struct Field<'a>(pub &'a str, pub Acc, pub bool, pub Update, pub &'a [(&'a str, usize)]);

impl Term for Field<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x81]);
        with_pkg_length(out, |out| {
            name_string(out, self.0);
            out.push(self.1 as u8 | u8::from(self.2) << 4 | (self.3 as u8) << 5);
            for (name, bits) in self.4 {
                if name.is_empty() {
                    out.push(0x00);
                } else {
                    name_seg(out, name);
                }
                field_width(out, *bits);
            }
        });
    }
}

/// Width of a field: like a package length, but it does not count itself.
fn field_width(out: &mut Vec<u8>, bits: usize) {
    if bits < 0x40 {
        out.push(bits as u8);
    } else {
        // One more byte reaches 4095 bits, more than any field list here has.
        out.extend([0x40 | (bits & 0xf) as u8, (bits >> 4) as u8]);
    }
}

/// `Mutex (name, 0)`.
pub struct Mutex<'a>(pub &'a str);

impl Term for Mutex<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x01]);
        name_string(out, self.0);
        out.push(0);
    }
}

/// `Acquire (name, 0xFFFF)`: waits for ever.
pub struct Acquire<'a>(pub &'a str);

impl Term for Acquire<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x23]);
        name_string(out, self.0);
        out.extend([0xff, 0xff]);
    }
}

/// `Release (name)`.
pub struct Release<'a>(pub &'a str);

impl Term for Release<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x5b, 0x27]);
        name_string(out, self.0);
    }
}

macro_rules! block_term {
    ($(#[$doc:meta])* $name:ident $op:literal) => {
        $(#[$doc])*
        pub struct $name<C, T>(pub C, pub T);

        impl<C: Term, T: Term> Term for $name<C, T> {
            fn emit(&self, out: &mut Vec<u8>) {
                out.push($op);
                with_pkg_length(out, |out| {
                    self.0.emit(out);
                    self.1.emit(out);
                });
            }
        }
    };
}
block_term!(
    /// `If (condition) { body }`.
    If 0xa0
);
block_term!(
    /// `While (condition) { body }`.
    While 0xa2
);

/// `Else { body }`, right after an [`If`].
pub struct Else<T>(pub T);

impl<T: Term> Term for Else<T> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0xa1);
        with_pkg_length(out, |out| self.0.emit(out));
    }
}

/// Leaves the innermost loop.
pub struct Break;

impl Term for Break {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0xa5);
    }
}

macro_rules! op_term {
    ($(#[$doc:meta])* $name:ident[$($op:literal)+]($($arg:ident $field:tt),+) $($tail:literal)*) => {
        $(#[$doc])*
        pub struct $name<$($arg),+>($(pub $arg),+);

        impl<$($arg: Term),+> Term for $name<$($arg),+> {
            fn emit(&self, out: &mut Vec<u8>) {
                out.extend([$($op),+]);
                $(self.$field.emit(out);)+
                $(out.push($tail);)*
            }
        }
    };
}
op_term!(
    /// `Store (value, target)`.
    Store[0x70](A 0, B 1)
);
op_term!(
    /// `Return (value)`.
    Return[0xa4](A 0)
);
op_term!(
    /// `Add (a, b, target)`.
    Add[0x72](A 0, B 1, C 2)
);
op_term!(
    /// `Subtract (a, b, target)`.
    Subtract[0x74](A 0, B 1, C 2)
);
op_term!(
    /// `And (a, b, target)`.
    And[0x7b](A 0, B 1, C 2)
);
op_term!(
    /// `Or (a, b, target)`.
    Or[0x7d](A 0, B 1, C 2)
);
op_term!(
    /// `ShiftLeft (value, count, target)`.
    ShiftLeft[0x79](A 0, B 1, C 2)
);
op_term!(
    /// `ShiftRight (value, count, target)`.
    ShiftRight[0x7a](A 0, B 1, C 2)
);
op_term!(
    /// `Increment (variable)`.
    Increment[0x75](A 0)
);
op_term!(
    /// `Index (object, index)` without a target.
    Index[0x88](A 0, B 1) 0x00
);
op_term!(
    /// `DerefOf (reference)`.
    DerefOf[0x83](A 0)
);
op_term!(
    /// `SizeOf (object)`.
    SizeOf[0x87](A 0)
);
op_term!(
    /// `ToHexString (value, target)`.
    ToHexString[0x98](A 0, B 1)
);
op_term!(
    /// `ToBuffer (value, target)`.
    ToBuffer[0x96](A 0, B 1)
);
op_term!(
    /// `ToInteger (value, target)`.
    ToInteger[0x99](A 0, B 1)
);
op_term!(
    /// `LNot (value)`.
    LNot[0x92](A 0)
);
op_term!(
    /// `LAnd (a, b)`.
    LAnd[0x90](A 0, B 1)
);
op_term!(
    /// `LOr (a, b)`.
    LOr[0x91](A 0, B 1)
);
op_term!(
    /// `LEqual (a, b)`.
    LEqual[0x93](A 0, B 1)
);
op_term!(
    /// `LGreater (a, b)`.
    LGreater[0x94](A 0, B 1)
);
op_term!(
    /// `LLess (a, b)`.
    LLess[0x95](A 0, B 1)
);
op_term!(
    /// `Notify (device, value)`.
    Notify[0x86](A 0, B 1)
);
op_term!(
    /// `CreateDWordField (buffer, byte offset, name)`.
    CreateDWordField[0x8a](A 0, B 1, C 2)
);

/// Method call: the callee's name and its arguments.
pub struct Call<'a, T>(pub &'a str, pub T);

impl<T: Term> Term for Call<'_, T> {
    fn emit(&self, out: &mut Vec<u8>) {
        name_string(out, self.0);
        self.1.emit(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(term: impl Term) -> Vec<u8> {
        let mut out = Vec::new();
        term.emit(&mut out);
        out
    }

    #[test]
    fn integers_take_the_shortest_form() {
        assert_eq!(bytes(0u64), [0x00]);
        assert_eq!(bytes(1u64), [0x01]);
        assert_eq!(bytes(0xffu64), [0x0a, 0xff]);
        assert_eq!(bytes(0x100u64), [0x0b, 0x00, 0x01]);
        assert_eq!(bytes(0x1_0000u64), [0x0c, 0, 0, 1, 0]);
        assert_eq!(bytes(1u64 << 32), [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn package_lengths_at_their_borders() {
        // A buffer of n data bytes: its body is the size constant (2 bytes here) and the data.
        for (body, prefix) in [
            (0x3e, vec![0x3f]),
            (0x3f, vec![0x41, 0x04]),
            (0xffd, vec![0x4f, 0xff]),
            (0xffe, vec![0x81, 0x00, 0x01]),
        ] {
            let mut out = Vec::new();
            with_pkg_length(&mut out, |out| out.extend(std::iter::repeat_n(0xaa, body)));
            assert_eq!(out[..prefix.len()], prefix, "body of {body:#x}");
            assert_eq!(out.len(), body + prefix.len());
        }
    }

    #[test]
    fn names() {
        assert_eq!(bytes(N("\\")), b"\\\0");
        assert_eq!(bytes(N("PRD")), b"PRD_");
        assert_eq!(bytes(N("\\_SB.PCI0")), b"\\\x2e_SB_PCI0");
        assert_eq!(bytes(N("^S20.PCNT")), b"^\x2eS20_PCNT");
        assert_eq!(bytes(N("\\_SB.PCI0.PRES.CPLK")), b"\\\x2f\x04_SB_PCI0PRESCPLK");
    }

    #[test]
    fn eisa_ids_and_uuids() {
        assert_eq!(bytes(EisaId("PNP0A03")), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
        let uuid = bytes(Uuid("e5c937d0-3553-4d7a-9117-ea4d19c3434d"));
        assert_eq!(uuid[..8], [0x11, 0x13, 0x0a, 0x10, 0xd0, 0x37, 0xc9, 0xe5]);
        assert_eq!(uuid[8..12], [0x53, 0x35, 0x7a, 0x4d]);
        assert_eq!(uuid[12..], [0x91, 0x17, 0xea, 0x4d, 0x19, 0xc3, 0x43, 0x4d]);
    }

    #[test]
    fn a_method_with_a_branch() {
        let got = bytes(Method("_STA", 0, false, (If(LEqual(N("A"), 0u64), Return(0u64)), Return(0x0fu64))));
        let want = b"\x14\x13_STA\x00\xa0\x09\x93A___\x00\xa4\x00\xa4\x0a\x0f";
        assert_eq!(got, want);
    }

    #[test]
    fn field_list_with_a_gap_and_a_wide_field() {
        let got = bytes(Field("REGN", Acc::Byte, false, Update::Zeros, &[("", 32), ("AB", 1), ("WIDE", 64)]));
        assert_eq!(got, b"\x5b\x81\x13REGN\x41\0\x20AB__\x01WIDE\x40\x04");
    }
}
