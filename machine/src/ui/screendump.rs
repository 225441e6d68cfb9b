//! Pictures of the screen as files: PPM (P6) and PNG.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::Picture;
use crate::device::DevId;
use crate::error::strerror;
use crate::machine::Machine;
use crate::{qerr, QError, QResult};

/// File format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// Portable pixmap, binary.
    #[default]
    Ppm,
    /// Portable Network Graphics.
    Png,
}

/// Devices with a screen, in the order of their console numbers.
pub fn consoles(m: &mut Machine) -> Vec<DevId> {
    let ids = m.tree.ids();
    ids.into_iter().filter(|id| m.with_dev(*id, |d, _| d.display().is_some()) == Some(true)).collect()
}

/// The device whose screen `device` and `head` name (QMP's arguments); `None` if they are not given.
///
/// # Errors
/// No such device, or it has no such screen.
pub fn find_console(m: &mut Machine, device: Option<&str>, head: Option<i64>) -> QResult<Option<DevId>> {
    let Some(name) = device else { return Ok(None) };
    let dev = m.tree.by_user_id(name).ok_or_else(|| QError::device_not_found(name))?.id;
    let head = head.unwrap_or(0);
    let has = head == 0 && m.with_dev(dev, |d, _| d.display().is_some()) == Some(true);
    if has {
        Ok(Some(dev))
    } else {
        Err(qerr!("Device {name} (head {head}) is not bound to a QemuConsole"))
    }
}

/// The picture that `screendump` takes: of the named screen, else of the first one.
///
/// # Errors
/// As [`find_console`]; or there is no screen.
pub fn take_picture(m: &mut Machine, device: Option<&str>, head: Option<i64>) -> QResult<Picture> {
    if device.is_none() && head.is_some() {
        return Err(qerr!("'head' must be specified together with 'device'"));
    }
    let dev = match find_console(m, device, head)? {
        Some(d) => d,
        None => *consoles(m).first().ok_or_else(|| qerr!("There is no console to take a screendump from"))?,
    };
    m.with_dev(dev, |d, cx| d.display().map(|s| s.snapshot(cx)))
        .flatten()
        .ok_or_else(|| qerr!("There is no console to take a screendump from"))
}

/// `screendump`: writes a picture of a screen to the file `path`, which is created or overwritten.
///
/// # Errors
/// As [`take_picture`]; the file cannot be opened or written.
pub fn screendump(
    m: &mut Machine,
    path: &str,
    format: ImageFormat,
    device: Option<&str>,
    head: Option<i64>,
) -> QResult<()> {
    let picture = take_picture(m, device, head)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|e| qerr!("failed to open file '{path}': {}", strerror(&e)))?;
    let written = write_image(&picture, format, &mut file);
    if written.is_err() && file.metadata().is_ok_and(|m| m.is_file()) {
        // Half a picture helps nobody.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Writes a picture to an open file.
///
/// # Errors
/// Writing failed.
pub fn write_image(p: &Picture, format: ImageFormat, out: &mut impl Write) -> QResult<()> {
    match format {
        ImageFormat::Ppm => write_ppm(p, out).map_err(|e| qerr!("Unable to write to file: {}", strerror(&e))),
        ImageFormat::Png => write_png(p, out).map_err(|e| match e {
            png::EncodingError::IoError(e) => {
                qerr!("PNG creation failed. Unable to close file: {}", strerror(&e))
            }
            e => qerr!("PNG creation failed. {e}"),
        }),
    }
}

fn write_ppm(p: &Picture, out: &mut impl Write) -> io::Result<()> {
    out.write_all(format!("P6\n{} {}\n255\n", p.width, p.height).as_bytes())?;
    out.write_all(&p.rgb)?;
    out.flush()
}

fn write_png(p: &Picture, out: &mut impl Write) -> Result<(), png::EncodingError> {
    let mut e = png::Encoder::new(out, p.width, p.height);
    e.set_color(png::ColorType::Rgb);
    e.set_depth(png::BitDepth::Eight);
    e.set_compression(png::Compression::Fast);
    let mut w = e.write_header()?;
    w.write_image_data(&p.rgb)?;
    w.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;

    #[test]
    fn formats() {
        let p = Picture { width: 2, height: 1, rgb: vec![1, 2, 3, 250, 251, 252] };
        let mut out = Vec::new();
        write_image(&p, ImageFormat::Ppm, &mut out).unwrap();
        assert_eq!(out, b"P6\n2 1\n255\n\x01\x02\x03\xfa\xfb\xfc");
        let mut out = Vec::new();
        write_image(&p, ImageFormat::Png, &mut out).unwrap();
        let mut r = png::Decoder::new(io::Cursor::new(out)).read_info().unwrap();
        let mut back = vec![0; 6];
        let info = r.next_frame(&mut back).unwrap();
        assert_eq!((info.width, info.height, back), (2, 1, p.rgb));
    }

    #[test]
    fn errors() {
        let mut m = machine();
        let e = |m: &mut Machine, d, h| take_picture(m, d, h).unwrap_err().desc;
        assert_eq!(e(&mut m, None, None), "There is no console to take a screendump from");
        assert_eq!(e(&mut m, None, Some(0)), "'head' must be specified together with 'device'");
        assert_eq!(e(&mut m, Some("x"), None), "Device 'x' not found");
        let p = Picture::black(1, 1);
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(28))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let e = write_image(&p, ImageFormat::Ppm, &mut Full).unwrap_err();
        assert_eq!(e.desc, "Unable to write to file: No space left on device");
        let e = write_image(&p, ImageFormat::Png, &mut Full).unwrap_err();
        assert_eq!(e.desc, "PNG creation failed. Unable to close file: No space left on device");
    }
}
