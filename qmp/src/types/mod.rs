//! QAPI types: what a Rust type looks like on the wire and in `query-qmp-schema`.
//!
//! A type is defined once, by [`qapi_struct!`](crate::qapi_struct), [`qapi_enum!`](crate::qapi_enum) or
//! [`qapi_union!`](crate::qapi_union); reading (strict, with QEMU's error texts), writing and the schema entry all
//! come from that definition.

mod macros;
#[doc(hidden)]
pub use macros::dashed;
mod object;
mod path;
mod schema;
mod spec;

pub use object::{Members, ObjectIn};
pub use path::Path;
pub use schema::Schema;
pub use spec::{branch_type, structure, Checked, SpecType};

#[cfg(test)]
mod tests;

use rqemu_machine::{qerr, QError, QResult};
use serde_json::{Map, Value};
use std::marker::PhantomData;

/// A type that arguments can have.
pub trait FromQapi: Sized {
    /// Reads a value; `at` is where it stands, for messages.
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self>;

    /// What an absent member is: an error unless it is optional.
    fn absent(at: &Path<'_>) -> QResult<Self> {
        Err(qerr!("Parameter '{at}' is missing"))
    }
}

/// A type that replies and events can have.
pub trait ToQapi {
    /// The value on the wire; `None` for an absent optional member.
    fn to_qapi(self) -> Option<Value>;
}

/// A type that the schema can describe.
pub trait Describe {
    /// A member of this type may be absent.
    const OPTIONAL: bool = false;

    /// Enters the type into the schema and returns its name there.
    fn describe(schema: &mut Schema) -> String;
}

/// The error for a value of the wrong JSON type.
pub fn wrong_type(at: &Path<'_>, expected: &str) -> QError {
    qerr!("Invalid parameter type for '{at}', expected: {expected}")
}

/// A type with the members of an object: a struct, or a branch of a union.
pub trait QapiObject: Sized {
    /// Takes the members out of `from`.
    fn read(from: &mut ObjectIn<'_>) -> QResult<Self>;
    /// Adds the members to `to`.
    fn write(self, to: &mut Map<String, Value>);
    /// Describes the members.
    fn members(schema: &mut Schema) -> Members;
}

/// No arguments, or a reply without content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty;

impl QapiObject for Empty {
    fn read(_: &mut ObjectIn<'_>) -> QResult<Self> {
        Ok(Self)
    }
    fn write(self, _: &mut Map<String, Value>) {}
    fn members(_: &mut Schema) -> Members {
        Members::default()
    }
}

impl FromQapi for Empty {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        ObjectIn::read_all(value, at)
    }
}

impl Describe for Empty {
    fn describe(_: &mut Schema) -> String {
        Schema::EMPTY.into()
    }
}

impl ToQapi for () {
    fn to_qapi(self) -> Option<Value> {
        Some(Value::Object(Map::new()))
    }
}

impl Describe for () {
    fn describe(_: &mut Schema) -> String {
        Schema::EMPTY.into()
    }
}

/// JSON null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Null;

impl FromQapi for Null {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        value.is_null().then_some(Self).ok_or_else(|| wrong_type(at, "null"))
    }
}

impl ToQapi for Null {
    fn to_qapi(self) -> Option<Value> {
        Some(Value::Null)
    }
}

impl Describe for Null {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("null", "null")
    }
}

/// Arguments that are checked further down (by the property system or the block layer) but described as `T`.
#[derive(Clone, Debug)]
pub struct Raw<T> {
    /// The members as they came.
    pub map: Map<String, Value>,
    described_as: PhantomData<T>,
}

impl<T> FromQapi for Raw<T> {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, described_as: PhantomData }),
            _ => Err(wrong_type(at, "object")),
        }
    }
}

impl<T: Describe> Describe for Raw<T> {
    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }
}

/// A reply that another layer made as a value, described as `T`.
#[derive(Clone, Debug)]
pub struct Made<T> {
    value: Value,
    described_as: PhantomData<T>,
}

impl<T> From<Value> for Made<T> {
    fn from(value: Value) -> Self {
        Self { value, described_as: PhantomData }
    }
}

impl<T> ToQapi for Made<T> {
    fn to_qapi(self) -> Option<Value> {
        Some(self.value)
    }
}

impl<T: Describe> Describe for Made<T> {
    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }
}

impl<T: FromQapi> FromQapi for Option<T> {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        T::from_qapi(value, at).map(Some)
    }
    fn absent(_: &Path<'_>) -> QResult<Self> {
        Ok(None)
    }
}

impl<T: ToQapi> ToQapi for Option<T> {
    fn to_qapi(self) -> Option<Value> {
        self.and_then(T::to_qapi)
    }
}

impl<T: Describe> Describe for Option<T> {
    const OPTIONAL: bool = true;
    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }
}

impl<T: FromQapi> FromQapi for Box<T> {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        T::from_qapi(value, at).map(Self::new)
    }
}

impl<T: ToQapi> ToQapi for Box<T> {
    fn to_qapi(self) -> Option<Value> {
        (*self).to_qapi()
    }
}

impl<T: Describe> Describe for Box<T> {
    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }
}

impl<T: FromQapi> FromQapi for Vec<T> {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        let Value::Array(items) = value else { return Err(wrong_type(at, "array")) };
        items.into_iter().enumerate().map(|(i, v)| T::from_qapi(v, &Path::Index(at, i))).collect()
    }
}

impl<T: ToQapi> ToQapi for Vec<T> {
    fn to_qapi(self) -> Option<Value> {
        Some(Value::Array(self.into_iter().filter_map(T::to_qapi).collect()))
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn describe(schema: &mut Schema) -> String {
        let element = T::describe(schema);
        schema.array(element)
    }
}

impl FromQapi for Value {
    fn from_qapi(value: Value, _: &Path<'_>) -> QResult<Self> {
        Ok(value)
    }
}

impl ToQapi for Value {
    fn to_qapi(self) -> Option<Value> {
        Some(self)
    }
}

impl Describe for Value {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("any", "value")
    }
}

impl FromQapi for String {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        match value {
            Value::String(s) => Ok(s),
            _ => Err(wrong_type(at, "string")),
        }
    }
}

impl ToQapi for String {
    fn to_qapi(self) -> Option<Value> {
        Some(self.into())
    }
}

impl ToQapi for &str {
    fn to_qapi(self) -> Option<Value> {
        Some(self.into())
    }
}

impl Describe for String {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("str", "string")
    }
}

impl FromQapi for bool {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        value.as_bool().ok_or_else(|| wrong_type(at, "boolean"))
    }
}

impl ToQapi for bool {
    fn to_qapi(self) -> Option<Value> {
        Some(self.into())
    }
}

impl Describe for bool {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("bool", "boolean")
    }
}

impl FromQapi for f64 {
    fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
        value.as_f64().ok_or_else(|| wrong_type(at, "number"))
    }
}

impl ToQapi for f64 {
    fn to_qapi(self) -> Option<Value> {
        Some(self.into())
    }
}

impl Describe for f64 {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("number", "number")
    }
}

macro_rules! integers {
    ($($t:ty: $signed:expr, $range:literal;)*) => {$(
        impl FromQapi for $t {
            fn from_qapi(value: Value, at: &Path<'_>) -> QResult<Self> {
                // A 64-bit unsigned argument takes negative numbers as their two's complement, like QEMU.
                let wide = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                let fits = |v: i128| <$t>::try_from(v).ok();
                match (value.as_i64(), wide.and_then(fits)) {
                    (_, Some(v)) if !$signed || value.as_i64().is_some() => Ok(v),
                    (Some(v), _) if size_of::<$t>() == 8 => Ok(v as $t),
                    (Some(_), _) => Err(qerr!("Parameter '{at}' expects {}", $range)),
                    _ if $signed => Err(wrong_type(at, "integer")),
                    _ if value.is_u64() => Err(qerr!("Parameter '{at}' expects {}", $range)),
                    _ => Err(qerr!("Parameter '{at}' expects uint64")),
                }
            }
        }
        impl ToQapi for $t {
            fn to_qapi(self) -> Option<Value> {
                Some(self.into())
            }
        }
        impl Describe for $t {
            fn describe(schema: &mut Schema) -> String {
                schema.builtin("int", "int")
            }
        }
    )*};
}

integers! {
    i64: true, "int64_t";
    i32: true, "int32_t";
    i16: true, "int16_t";
    i8: true, "int8_t";
    u64: false, "uint64";
    u32: false, "uint32_t";
    u16: false, "uint16_t";
    u8: false, "uint8_t";
}
