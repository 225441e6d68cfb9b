//! One SMBIOS structure: a formatted area and the strings that it counts.

/// A structure under construction; the methods append fields in order.
pub struct Structure {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    /// Starts a structure.
    pub fn new(typ: u8, handle: u16) -> Self {
        let mut formatted = vec![typ, 0];
        formatted.extend(handle.to_le_bytes());
        Self { formatted, strings: Vec::new(), count: 0 }
    }

    /// A byte.
    pub fn byte(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    /// Several bytes.
    pub fn bytes(mut self, values: &[u8]) -> Self {
        self.formatted.extend_from_slice(values);
        self
    }

    /// A word.
    pub fn word(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A dword.
    pub fn dword(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A qword.
    pub fn qword(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A string number; absent and empty strings have number 0.
    pub fn string(mut self, text: Option<&str>) -> Self {
        match text {
            None | Some("") => self.byte(0),
            Some(text) => {
                self = self.plain_string(text.as_bytes());
                let number = self.count;
                self.byte(number)
            }
        }
    }

    /// A string that no field refers to.
    pub fn plain_string(mut self, text: &[u8]) -> Self {
        self.strings.extend_from_slice(text);
        self.strings.push(0);
        self.count = self.count.saturating_add(1);
        self
    }

    /// The bytes: formatted area, strings, terminator.
    pub fn finish(mut self) -> Vec<u8> {
        self.formatted[1] = self.formatted.len() as u8;
        self.formatted.append(&mut self.strings);
        if self.count == 0 {
            self.formatted.push(0);
        }
        self.formatted.push(0);
        self.formatted
    }
}
