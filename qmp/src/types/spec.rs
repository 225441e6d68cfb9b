//! Types that options and QMP share: structures of [`rqemu_machine::spec::schema`] as QAPI types.

use super::{wrong_type, Describe, FromQapi, Members, Path, Schema};
use rqemu_machine::spec::schema::{Field, Kind, Struct};
use rqemu_machine::spec::visit::{self, Mode};
use rqemu_machine::spec::{Dict, Value as SpecValue};
use rqemu_machine::QResult;
use serde_json::{json, Value};
use std::marker::PhantomData;

/// Names a structure.
pub trait SpecType {
    /// The structure.
    const STRUCT: &'static Struct;
}

/// Arguments that are the structure of `T`: checked and typed, absent members left out.
#[derive(Clone, Debug)]
pub struct Checked<T> {
    /// The members.
    pub dict: Dict,
    of: PhantomData<T>,
}

impl<T: SpecType> FromQapi for Checked<T> {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        match SpecValue::from_json(value) {
            SpecValue::Dict(dict) => {
                Ok(Self { dict: visit::check(dict, T::STRUCT, Mode::Json)?, of: PhantomData })
            }
            _ => Err(wrong_type(at, "object")),
        }
    }
}

impl<T: SpecType> Describe for Checked<T> {
    fn describe(schema: &mut Schema) -> String {
        structure(schema, T::STRUCT)
    }
}

/// Describes a structure.
pub fn structure(schema: &mut Schema, s: &'static Struct) -> String {
    schema.object(&format!("{s:p}"), |schema| {
        let mut members = fields(schema, s.fields);
        if let Some(tag) = s.tag {
            for case in cases(s.fields, tag.name) {
                let branch = tag.branches.iter().find(|b| b.0 == *case).map_or(&[][..], |b| b.1);
                let ty = branch_type(schema, branch);
                members.branch(tag.name, case, ty);
            }
        }
        members
    })
}

/// The values of the tag among `fields`.
fn cases(fields: &[Field], tag: &str) -> &'static [&'static str] {
    match fields.iter().find(|f| f.name == tag).map(|f| f.kind) {
        Some(Kind::Enum(names)) => names,
        _ => &[],
    }
}

/// Describes the members of one branch of a union.
pub fn branch_type(schema: &mut Schema, branch: &'static [Field]) -> String {
    if branch.is_empty() {
        return Schema::EMPTY.into();
    }
    schema.object(&format!("{:p}+{}", branch.as_ptr(), branch.len()), |schema| fields(schema, branch))
}

/// Describes members.
fn fields(schema: &mut Schema, list: &'static [Field]) -> Members {
    let mut members = Members::default();
    for f in list {
        let ty = kind(schema, &f.kind);
        members.members.push(if f.required {
            json!({"name": f.name, "type": ty})
        } else {
            json!({"name": f.name, "default": null, "type": ty})
        });
    }
    members
}

fn kind(schema: &mut Schema, k: &'static Kind) -> String {
    match k {
        Kind::Any => schema.builtin("any", "value"),
        Kind::Str => schema.builtin("str", "string"),
        Kind::Bool => schema.builtin("bool", "boolean"),
        Kind::Int(_) | Kind::Size => schema.builtin("int", "int"),
        Kind::Enum(names) => schema.enumeration(&format!("{:p}+{}", names.as_ptr(), names.len()), names),
        Kind::Struct(s) => structure(schema, s),
        Kind::List(item) => {
            let element = kind(schema, item);
            schema.array(element)
        }
    }
}
