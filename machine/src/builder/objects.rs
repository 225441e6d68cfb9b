//! `-object`.

use super::Build;
use crate::objects;
use crate::spec::visit::Mode;
use crate::spec::{Dict, ObjectSpec, Value, VmSpec};
use crate::QResult;

/// The notation an object was written in.
fn mode(o: &ObjectSpec) -> Mode {
    let text = o.props.iter().any(|(_, v)| matches!(v, Value::Text(_)));
    if text {
        Mode::Opts
    } else {
        Mode::Json
    }
}

fn typed(o: &ObjectSpec) -> QResult<Dict> {
    objects::check(&o.qom_type, &o.props, mode(o)).map_err(|e| o.loc.locate(e))
}

/// Checks all `-object` options, before anything is created.
///
/// # Errors
/// The first bad one.
pub fn check_objects(spec: &VmSpec) -> QResult<()> {
    spec.objects.iter().try_for_each(|o| typed(o).map(|_| ()))
}

impl Build<'_> {
    /// User-creatable objects, in the order of the command line.
    ///
    /// # Errors
    /// What an object says about its options.
    pub fn create_objects(&mut self) -> QResult<()> {
        for o in &self.spec.objects {
            self.m.create_object(&o.qom_type, &o.id, &typed(o)?)?;
        }
        Ok(())
    }
}
