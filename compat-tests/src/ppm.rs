//! Screen dumps: reading PPM, comparing two pictures.

use crate::Res;

/// An RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// Three bytes a pixel, rows from the top.
    pub rgb: Vec<u8>,
}

/// Reads a binary PPM (P6, maximum 255), as `screendump` writes it.
pub fn parse(data: &[u8]) -> Res<Picture> {
    let mut at = 0;
    let mut word = || -> Res<String> {
        while at < data.len() && data[at].is_ascii_whitespace() {
            at += 1;
        }
        let start = at;
        while at < data.len() && !data[at].is_ascii_whitespace() {
            at += 1;
        }
        Ok(String::from_utf8_lossy(&data[start..at]).into_owned())
    };
    let magic = word()?;
    let mut num = || word()?.parse::<usize>().map_err(|e| format!("PPM header: {e}"));
    let (width, height, max) = (num()?, num()?, num()?);
    if magic != "P6" || max != 255 {
        return Err(format!("not a P6/255 picture: {magic} {max}"));
    }
    let rgb = data.get(at + 1..).unwrap_or_default().to_vec();
    if rgb.len() != width * height * 3 {
        return Err(format!("{width}x{height} picture with {} bytes", rgb.len()));
    }
    Ok(Picture { width, height, rgb })
}

impl Picture {
    /// How many pixels differ; an error when the sizes differ.
    pub fn differing(&self, other: &Picture) -> Res<usize> {
        if (self.width, self.height) != (other.width, other.height) {
            return Err(format!("{}x{} against {}x{}", self.width, self.height, other.width, other.height));
        }
        Ok(self.rgb.chunks(3).zip(other.rgb.chunks(3)).filter(|(a, b)| a != b).count())
    }

    /// How many different colours it has (1: blank).
    pub fn colours(&self) -> usize {
        let mut set: Vec<&[u8]> = self.rgb.chunks(3).collect();
        set.sort_unstable();
        set.dedup();
        set.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_counts() {
        let a = parse(b"P6\n2 1\n255\n\x00\x00\x00\xff\xff\xff").unwrap();
        let b = parse(b"P6\n2 1\n255\n\x00\x00\x00\xff\xff\x00").unwrap();
        assert_eq!((a.differing(&b).unwrap(), a.colours()), (1, 2));
        assert!(parse(b"P6\n2 2\n255\n\x00").is_err());
        assert!(parse(b"P5\n1 1\n255\n\x00").is_err());
    }
}
