//! Properties of a CPU object: what the model says, and what the user changed.

use serde_json::{json, Value};

use super::caches::CacheModel;
use super::features::{self, w, Features, Reg, WORDS};
use super::models::{self, Vendor};
use super::names::{Kind, Name};
use super::resolve::Resolved;
use super::table::{scalar, SCALARS};
use super::words::At;
use crate::qom::{PropAccess, PropGet, PropInput, PropValue};
use crate::{qerr, QResult};

/// A switch whose default depends on the accelerator.
const AUTO: i64 = -1;

/// Bits of `lbr-fmt` that no format uses: no last-branch records.
const NO_LBR: u64 = !0x3f;

/// Properties of a CPU.
#[derive(Clone)]
pub struct CpuProps {
    /// Which model.
    pub name: &'static Name,
    /// Features that the model or the user wants.
    pub want: Features,
    /// Features that the user set or cleared.
    pub user: Features,
    /// Family, model, stepping; `None`: the host's.
    pub signature: [Option<u32>; 3],
    /// Vendor string; `None`: the accelerator's choice.
    pub vendor: Option<String>,
    /// Vendor of the model, if it has one.
    pub model_vendor: Option<Vendor>,
    /// Model name; `None`: the host's.
    pub model_id: Option<String>,
    /// Caches of the model.
    pub caches: CacheModel,
    /// `legacy-cache`.
    pub legacy_cache: bool,
    /// `migratable`: only features that survive a migration (`max` and `host`).
    pub migratable: bool,
    /// `host-cache-info`.
    pub host_cache_info: bool,
    /// `tsc-frequency` in Hz; 0: the host's.
    pub tsc_frequency: i64,
    hv_vendor_id: String,
    no_nonarch_coresharing: String,
    start_powered_off: bool,
    scalars: Box<[i64]>,
    /// What came out, once the CPU is realized (or expanded).
    pub resolved: Option<Box<Resolved>>,
}

impl CpuProps {
    /// Defaults of a model.
    pub fn new(name: &'static Name) -> Self {
        let mut p = Self {
            name,
            want: Features::default(),
            user: Features::default(),
            signature: [Some(0); 3],
            vendor: None,
            model_vendor: None,
            model_id: Some(String::new()),
            caches: CacheModel::Legacy,
            legacy_cache: true,
            migratable: true,
            host_cache_info: false,
            tsc_frequency: 0,
            hv_vendor_id: String::new(),
            no_nonarch_coresharing: "off".into(),
            start_powered_off: false,
            scalars: SCALARS.iter().map(|s| s.default).collect(),
            resolved: None,
        };
        match name.kind {
            Kind::Base => p.vendor = Some(String::new()),
            Kind::Max | Kind::Host => {
                p.signature = [None; 3];
                p.model_id = None;
                p.set_int("pmu", 1);
                p.set_int("host-phys-bits", AUTO);
            }
            Kind::Version(model, n) | Kind::Alias(model, n) => p.load(model, n),
            Kind::Plain(model) => p.load(model, 1),
        }
        p
    }

    fn load(&mut self, model: &str, version: usize) {
        let Some(m) = models::find(model) else { return };
        self.want.apply(m.features);
        for (word, bits) in (w::VMX_PROC..=w::VMX_VMFUNC).zip(m.vmx) {
            self.want.0[word] = *bits;
        }
        self.model_vendor = Some(m.vendor);
        let (family, mut number, mut stepping) = m.signature;
        let mut id = m.id;
        for v in m.versions.iter().take(version) {
            self.want.apply(v.change);
            if !v.id.is_empty() {
                id = v.id;
            }
            (number, stepping) = v.cpu.unwrap_or((number, stepping));
        }
        self.signature = [family, number, stepping].map(Some);
        self.model_id = Some(id.into());
        self.set_int("min-level", i64::from(m.level));
        self.set_int("min-xlevel", i64::from(m.xlevel));
        self.caches = m.caches;
        self.legacy_cache = m.caches == CacheModel::Legacy;
        self.want.set("hypervisor", true);
    }

    /// A named model, that is not `max`, `host` or `base`.
    pub fn is_named_model(&self) -> bool {
        self.model_vendor.is_some()
    }

    /// A switch or number by name (0 for unknown names).
    pub fn int(&self, name: &str) -> i64 {
        scalar(name).map_or(0, |i| self.scalars[i])
    }

    /// A switch.
    pub fn on(&self, name: &str) -> bool {
        self.int(name) != 0
    }

    pub(super) fn set_int(&mut self, name: &str, v: i64) {
        if let Some(i) = scalar(name) {
            self.scalars[i] = v;
        }
    }

    /// Sets a feature by name, as the user's wish.
    pub fn set_feature(&mut self, name: &str, on: bool) -> bool {
        self.user.set(name, true) && self.want.set(name, on)
    }

    /// The first property that was switched on and that this program cannot honour, with the reason.
    pub fn unsupported(&self) -> QResult<()> {
        let hv = SCALARS.iter().zip(&self.scalars).find(|(s, v)| {
            s.name.starts_with("hv-") && !s.name.starts_with("hv-version-id") && **v != s.default
        });
        if let Some((s, _)) = hv {
            return Err(qerr!("Hyper-V enlightenment '{}' is not supported by this accelerator", s.name));
        }
        if self.no_nonarch_coresharing == "on" {
            return Err(qerr!("Hyper-V enlightenments are not supported by this accelerator"));
        }
        if self.on("lmce") {
            return Err(qerr!("LMCE not supported"));
        }
        for name in ["kvm-pv-enforce-cpuid", "x-hv-synic-kvm-only"] {
            if self.on(name) {
                return Err(qerr!("'{name}' is not supported by this accelerator"));
            }
        }
        if self.start_powered_off {
            return Err(qerr!("'start-powered-off' is not supported for x86 CPUs"));
        }
        Ok(())
    }

    fn set_signature(&mut self, i: usize, name: &str, max: i64, input: &PropInput<'_>) -> QResult<()> {
        let v = int64(name, input)?;
        if !(0..=max).contains(&v) {
            return Err(qerr!("Property .{name} doesn't take value {v} (minimum: 0, maximum: {max})"));
        }
        self.signature[i] = Some(v as u32);
        Ok(())
    }

    fn set_scalar(&mut self, owner: &str, i: usize, input: &PropInput<'_>) -> QResult<()> {
        let s = &SCALARS[i];
        self.scalars[i] = match s.ty {
            "bool" => i64::from(bool::from_input(owner, s.name, input)?),
            "uint8" => i64::from(u8::from_input(owner, s.name, input)?),
            "uint16" => i64::from(u16::from_input(owner, s.name, input)?),
            "uint32" => i64::from(u32::from_input(owner, s.name, input)?),
            "int32" => i64::from(i32::from_input(owner, s.name, input)?),
            _ => u64::from_input(owner, s.name, input)? as i64,
        };
        Ok(())
    }

    fn set_other(&mut self, owner: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        let is_max = matches!(self.name.kind, Kind::Max | Kind::Host);
        match name {
            "family" => self.set_signature(0, name, 0xff + 0xf, input)?,
            "model" => self.set_signature(1, name, 0xff, input)?,
            "stepping" => self.set_signature(2, name, 0xf, input)?,
            "vendor" => {
                let v = text(name, input)?;
                if v.len() != 12 {
                    return Err(qerr!("Property '.vendor' doesn't take value '{v}'"));
                }
                self.vendor = Some(v);
            }
            "model-id" => self.model_id = Some(text(name, input)?),
            "hv-vendor-id" => self.hv_vendor_id = text(name, input)?,
            "hv-no-nonarch-coresharing" => {
                self.no_nonarch_coresharing = match text(name, input)?.as_str() {
                    v @ ("on" | "off" | "auto") => v.into(),
                    v => return Err(qerr!("Parameter '{name}' does not accept value '{v}'")),
                };
            }
            "lbr-fmt" | "lbr_fmt" => {
                let v = u64::from_input(owner, name, input)?;
                if v != NO_LBR {
                    return Err(qerr!("invalid lbr-fmt: last branch records are not supported"));
                }
            }
            "legacy-cache" => self.legacy_cache = bool::from_input(owner, name, input)?,
            "migratable" if is_max => self.migratable = bool::from_input(owner, name, input)?,
            "host-cache-info" if is_max => self.host_cache_info = bool::from_input(owner, name, input)?,
            "start-powered-off" => self.start_powered_off = bool::from_input(owner, name, input)?,
            "tsc-frequency" => {
                let v = int64(name, input)?;
                if v < 0 {
                    return Err(qerr!(
                        "Property .{name} doesn't take value {v} (minimum: 0, maximum: {})",
                        i64::MAX
                    ));
                }
                self.tsc_frequency = v;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn get_other(&self, name: &str) -> Option<Value> {
        let r = self.resolved.as_deref();
        let number = |i: usize| Value::from(self.signature[i].or(r.map(|r| r.signature[i])).unwrap_or(0));
        Some(match name {
            "family" => number(0),
            "model" => number(1),
            "stepping" => number(2),
            "vendor" => {
                let own = self.vendor.as_deref().or(self.model_vendor.map(Vendor::id));
                Value::from(r.map(|r| r.vendor.as_str()).or(own).unwrap_or(""))
            }
            "model-id" => {
                Value::from(self.model_id.as_deref().or(r.map(|r| r.model_id.as_str())).unwrap_or(""))
            }
            "hv-vendor-id" => match self.hv_vendor_id.as_str() {
                "" if r.is_some_and(|r| r.running_on_kvm) => Value::from("Microsoft Hv"),
                v => Value::from(v),
            },
            "hv-no-nonarch-coresharing" => Value::from(self.no_nonarch_coresharing.as_str()),
            "lbr-fmt" | "lbr_fmt" => Value::from(NO_LBR),
            "legacy-cache" => Value::from(self.legacy_cache),
            "memory" => Value::from("/machine/unattached/system[0]"),
            "migratable" if matches!(self.name.kind, Kind::Max | Kind::Host) => Value::from(self.migratable),
            "host-cache-info" if matches!(self.name.kind, Kind::Max | Kind::Host) => {
                Value::from(self.host_cache_info)
            }
            "start-powered-off" => Value::from(self.start_powered_off),
            "tsc-frequency" => Value::from(self.tsc_frequency),
            "unavailable-features" => json!(r.map(|r| r.filtered.to_names()).unwrap_or_default()),
            "feature-words" => word_list(&self.current()),
            "filtered-features" => word_list(&r.map(|r| r.filtered).unwrap_or_default()),
            _ => return None,
        })
    }

    /// Features as they are now.
    pub fn current(&self) -> Features {
        self.resolved.as_ref().map_or(self.want, |r| r.features)
    }

    fn get_scalar(&self, i: usize) -> Value {
        let (s, v) = (&SCALARS[i], self.scalars[i]);
        let v = match (s.name, self.resolved.as_deref()) {
            ("level", Some(r)) => i64::from(r.level),
            ("level-func7", Some(r)) => i64::from(r.level_func7),
            ("xlevel", Some(r)) => i64::from(r.xlevel),
            ("xlevel2", Some(r)) => i64::from(r.xlevel2),
            ("min-level", Some(r)) => i64::from(r.min_level),
            ("min-xlevel", Some(r)) => i64::from(r.min_xlevel),
            ("min-xlevel2", Some(r)) => i64::from(r.min_xlevel2),
            ("phys-bits", Some(r)) if r.phys_bits != 0 => i64::from(r.phys_bits),
            ("ucode-rev", Some(r)) if r.ucode_rev != 0 => return Value::from(r.ucode_rev),
            _ => v,
        };
        match s.ty {
            "bool" => Value::Bool(v == 1),
            "uint64" => Value::from(v as u64),
            _ => Value::from(v),
        }
    }
}

/// The CPUID words as introspection shows them: last word first.
fn word_list(f: &Features) -> Value {
    let one = |(i, x): (usize, &super::words::Word)| {
        let At::Cpuid(leaf, index, reg) = x.at else { return None };
        let mut o = serde_json::Map::new();
        let name = match reg {
            Reg::Eax => "EAX",
            Reg::Ebx => "EBX",
            Reg::Ecx => "ECX",
            Reg::Edx => "EDX",
        };
        o.insert("cpuid-register".into(), Value::from(name));
        if let Some(index) = index {
            o.insert("cpuid-input-ecx".into(), Value::from(index));
        }
        o.insert("cpuid-input-eax".into(), Value::from(leaf));
        o.insert("features".into(), Value::from(f.0[i]));
        Some(Value::Object(o))
    };
    Value::Array(WORDS.iter().enumerate().rev().filter_map(one).collect())
}

fn int64(name: &str, input: &PropInput<'_>) -> QResult<i64> {
    match input {
        PropInput::Str(s) => crate::qom::parse_int(s)
            .and_then(|v| i64::try_from(v).ok())
            .ok_or_else(|| qerr!("Parameter '{name}' expects int64")),
        PropInput::Json(_) => i64::from_input("", name, input),
    }
}

fn text(name: &str, input: &PropInput<'_>) -> QResult<String> {
    Ok(Option::<String>::from_input("", name, input)?.unwrap_or_default())
}

impl PropAccess for CpuProps {
    fn set_prop(&mut self, owner: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        if let Some(i) = scalar(name) {
            self.set_scalar(owner, i, input)?;
            return Ok(true);
        }
        if features::lookup(name).is_some() {
            let on = bool::from_input(owner, name, input)?;
            return Ok(self.set_feature(name, on));
        }
        self.set_other(owner, name, input)
    }

    fn get_prop(&self, name: &str) -> Option<PropGet> {
        let value = if let Some(i) = scalar(name) {
            self.get_scalar(i)
        } else if features::lookup(name).is_some() {
            Value::Bool(self.current().has(name))
        } else {
            self.get_other(name)?
        };
        let text = match &value {
            Value::String(s) => format!("\"{s}\""),
            Value::Number(n) => match n.as_u64() {
                Some(u) => format!("{u} (0x{u:x})"),
                None => n.to_string(),
            },
            v => v.to_string(),
        };
        Some(PropGet { value, text })
    }
}
