//! `-cpu model,feature...`: from the option to property values.

use super::names::{self, Name};
use crate::device::GlobalProp;
use crate::spec::{CpuFeature, CpuSpec};
use crate::{qerr, QResult};

/// What `-cpu` amounts to.
#[derive(Debug, Default)]
pub struct CpuFlags {
    /// Property values for the class of the model.
    pub globals: Vec<GlobalProp>,
    /// `+name` and `-name`, in the order in which they apply.
    pub flags: Vec<(String, bool)>,
    /// Lines for the user.
    pub warnings: Vec<String>,
}

/// Looks the model up and sorts its features.
///
/// # Errors
/// Unknown model; a frequency that is no number.
pub fn apply_spec(spec: &CpuSpec) -> QResult<(&'static Name, CpuFlags)> {
    let name = names::find(&spec.model).ok_or_else(|| qerr!("unable to find CPU model '{}'", spec.model))?;
    let mut out = CpuFlags::default();
    let (mut plus, mut minus) = (Vec::new(), Vec::new());
    for f in &spec.features {
        match f {
            CpuFeature::Plus(n) => plus.push(n.replace('_', "-")),
            CpuFeature::Minus(n) => minus.push(n.replace('_', "-")),
            CpuFeature::Prop(n, value) => {
                let n = n.replace('_', "-");
                out.warn_if_mixed(&plus, &minus, &n, value);
                let (property, value) = match n.as_str() {
                    "tsc-freq" => ("tsc-frequency".to_string(), frequency(value)?.to_string()),
                    _ => (n, value.clone()),
                };
                let driver = name.type_name.to_string();
                out.globals.push(GlobalProp { driver, property, value, strict: true });
            }
        }
    }
    if !out.warnings.is_empty() {
        out.warnings.push(
            "Compatibility of ambiguous CPU model strings won't be kept on future QEMU versions".into(),
        );
    }
    let on = plus.into_iter().map(|n| (n, true));
    out.flags = on.chain(minus.into_iter().map(|n| (n, false))).collect();
    Ok((name, out))
}

impl CpuFlags {
    fn warn_if_mixed(&mut self, plus: &[String], minus: &[String], name: &str, value: &str) {
        for (list, sign) in [(plus, '+'), (minus, '-')] {
            if list.iter().any(|n| n == name) {
                self.warnings.push(format!(
                    "Ambiguous CPU model string. Don't mix both \"{sign}{name}\" and \"{name}={value}\""
                ));
            }
        }
    }
}

/// A number with a decimal suffix (`2.3G`).
fn frequency(text: &str) -> QResult<u64> {
    let bad = || qerr!("bad numerical value {text}");
    let (number, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000u64),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    if let Some((whole, part)) = number.split_once('.') {
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let part: f64 = format!("0.{part}").parse().map_err(|_| bad())?;
        let whole = whole.checked_mul(scale).ok_or_else(bad)?;
        return whole.checked_add((part * scale as f64) as u64).ok_or_else(bad);
    }
    number.parse::<u64>().ok().and_then(|v| v.checked_mul(scale)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(model: &str, features: &[CpuFeature]) -> CpuSpec {
        CpuSpec { model: model.into(), features: features.to_vec() }
    }

    #[test]
    fn features_are_sorted() {
        let s = spec(
            "qemu64",
            &[
                CpuFeature::Minus("sse4_1".into()),
                CpuFeature::Plus("avx".into()),
                CpuFeature::Prop("tsc_freq".into(), "2.5G".into()),
                CpuFeature::Prop("avx".into(), "off".into()),
            ],
        );
        let (name, f) = apply_spec(&s).unwrap();
        assert_eq!(name.name, "qemu64");
        assert_eq!(f.flags, [("avx".to_string(), true), ("sse4-1".to_string(), false)]);
        assert_eq!(f.globals[0].property, "tsc-frequency");
        assert_eq!(f.globals[0].value, "2500000000");
        assert_eq!(f.warnings[0], "Ambiguous CPU model string. Don't mix both \"+avx\" and \"avx=off\"");
        assert_eq!(f.warnings.len(), 2);
    }

    #[test]
    fn errors() {
        assert_eq!(apply_spec(&spec("foo", &[])).unwrap_err().desc, "unable to find CPU model 'foo'");
        let s = spec("max", &[CpuFeature::Prop("tsc-freq".into(), "x".into())]);
        assert_eq!(apply_spec(&s).unwrap_err().desc, "bad numerical value x");
    }
}
