//! Objects that users create: `-object`, `object-add`, `object-del`.
//!
//! A type is described once: a properties struct with `#[derive(Device)]`, `impl UserObject`, and one line in
//! [`TYPES`]. Help, introspection and both ways of creation work from that record. A type that is not done is not
//! in the list. Objects live in `/objects`, by id.

mod iothread;
mod memory;
mod props;
mod rng;
mod schema;
mod secret;
#[cfg(test)]
mod tests;

use std::any::Any;

pub use iothread::{IothreadInfo, IothreadObject};
pub use memory::{Memdev, MemoryBackend, MemoryBackendFile, MemoryBackendMemfd, MemoryBackendRam};
pub use props::{Bytes, HostMemPolicy, Int64, NodeList, SecretFormat, Str};
pub use secret::Secret;

use crate::machine::Machine;
use crate::qom::{PropAccess, PropGet, PropInput, PropStruct, PropTable};
use crate::spec::schema::Struct;
use crate::spec::visit::{self, Mode};
use crate::spec::{Dict, Value};
use crate::{qerr, QError, QResult};

/// An object of a user.
pub trait UserObject: PropAccess {
    /// All properties are set: checks them and takes what the object needs.
    ///
    /// # Errors
    /// What is wrong; the object is dropped then.
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()>;
    /// Fills in defaults that depend on the machine; called before any property is set.
    fn prepare(&mut self, _m: &Machine) {}
    /// Sets a property of an object that is in use (`qom-set`).
    ///
    /// # Errors
    /// The property is fixed once the object exists, or the value is bad.
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        self.set_prop(ty, name, input)
    }
    /// The object goes away: gives back what `complete` took.
    fn removed(&mut self, _m: &mut Machine, _id: &str) {}
    /// Memory backend, if it is one.
    fn memory(&self) -> Option<&dyn MemoryBackend> {
        None
    }
    /// The concrete type.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// Record of a type.
pub struct ObjectType {
    /// Name.
    pub name: &'static str,
    /// Type it derives from.
    pub parent: &'static str,
    /// Properties; help lists those that `schema` knows.
    pub props: &'static PropTable,
    /// What `-object` and `object-add` take.
    pub schema: &'static Struct,
    /// Makes one with default values.
    pub create: fn() -> Box<dyn UserObject>,
}

/// Makes the record of a type.
const fn object_type<T: UserObject + PropStruct + Default + 'static>(
    name: &'static str,
    parent: &'static str,
    schema: &'static Struct,
) -> ObjectType {
    ObjectType { name, parent, props: T::PROPS, schema, create: || Box::new(T::default()) }
}

/// All types, sorted by name.
pub static TYPES: &[ObjectType] = &[
    object_type::<IothreadObject>("iothread", "event-loop-base", &schema::IOTHREAD),
    object_type::<MemoryBackendFile>("memory-backend-file", "memory-backend", &schema::MEMORY_FILE),
    object_type::<MemoryBackendMemfd>("memory-backend-memfd", "memory-backend", &schema::MEMORY_MEMFD),
    object_type::<MemoryBackendRam>("memory-backend-ram", "memory-backend", &schema::MEMORY_RAM),
    object_type::<rng::RngBuiltin>("rng-builtin", "rng-backend", &schema::NOTHING),
    object_type::<rng::RngRandom>("rng-random", "rng-backend", &schema::RNG_RANDOM),
    object_type::<Secret>("secret", "secret_common", &schema::SECRET),
];

/// Abstract types that [`TYPES`] derive from, with their parents.
pub static ABSTRACT_TYPES: &[(&str, &str)] = &[
    ("event-loop-base", "object"),
    ("memory-backend", "object"),
    ("rng-backend", "object"),
    ("secret_common", "object"),
];

/// Type by name.
pub fn find_type(name: &str) -> Option<&'static ObjectType> {
    TYPES.iter().find(|t| t.name == name)
}

/// Text of `-object help`.
pub fn help() -> String {
    let mut out = String::from("List of user creatable objects:\n");
    for t in TYPES {
        out.push_str(&format!("  {}\n", t.name));
    }
    out
}

/// Text of `-object TYPE,help`.
///
/// # Errors
/// There is no such type.
pub fn type_help(name: &str) -> QResult<String> {
    let ty = known_type(name)?;
    let known = |name: &str| ty.schema.fields.iter().any(|f| f.name == name);
    let mut lines: Vec<String> = ty
        .props
        .iter()
        .filter(|p| known(p.name))
        .map(|p| {
            let head = format!("{}=<{}>", p.name, p.ty);
            if p.desc.is_empty() {
                format!("  {head}\n")
            } else {
                format!("  {head:<22} - {}\n", p.desc)
            }
        })
        .collect();
    lines.sort();
    if lines.is_empty() {
        return Ok(format!("There are no options for {name}.\n"));
    }
    Ok(format!("{name} options:\n{}", lines.concat()))
}

fn unknown_type(name: &str) -> QError {
    qerr!("Parameter 'qom-type' does not accept value '{name}'")
}

/// An object in `/objects`.
pub struct ObjectNode {
    /// Id.
    pub id: String,
    /// Type.
    pub ty: &'static ObjectType,
    /// The object; out of its slot while it is being called.
    obj: Option<Box<dyn UserObject>>,
    /// How many use it.
    users: u32,
}

impl ObjectNode {
    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<PropGet> {
        self.obj.as_ref()?.get_prop(name)
    }

    /// The object, to look at.
    pub fn object(&self) -> Option<&dyn UserObject> {
        self.obj.as_deref()
    }
}

/// All objects of a machine, in order of creation.
#[derive(Default)]
pub struct ObjectTable {
    list: Vec<ObjectNode>,
}

impl ObjectTable {
    /// Objects in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectNode> {
        self.list.iter()
    }

    /// By id.
    pub fn get(&self, id: &str) -> Option<&ObjectNode> {
        self.list.iter().find(|n| n.id == id)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut ObjectNode> {
        self.list.iter_mut().find(|n| n.id == id)
    }

    /// Notes a user: the object cannot be deleted until [`Self::unuse`].
    pub fn use_object(&mut self, id: &str) {
        if let Some(n) = self.get_mut(id) {
            n.users += 1;
        }
    }

    /// A user is gone.
    pub fn unuse(&mut self, id: &str) {
        if let Some(n) = self.get_mut(id) {
            n.users = n.users.saturating_sub(1);
        }
    }

    /// Whether somebody uses the object.
    pub fn in_use(&self, id: &str) -> bool {
        self.get(id).is_some_and(|n| n.users > 0)
    }

    /// The object as a concrete type.
    pub fn with<T: 'static, R>(&mut self, id: &str, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let obj = self.get_mut(id)?.obj.as_mut()?;
        obj.as_any().downcast_mut::<T>().map(f)
    }
}

/// Checks the options of an object: `props` are those besides `qom-type` and `id`.
///
/// # Errors
/// Unknown type, unknown, missing or bad options; in the words for `mode`. Command-line errors carry the option.
pub fn check(qom_type: &str, props: &Dict, mode: Mode) -> QResult<Dict> {
    visit::check(props.clone(), known_type(qom_type)?.schema, mode)
}

/// Type by name.
///
/// # Errors
/// There is no such type.
pub fn known_type(name: &str) -> QResult<&'static ObjectType> {
    find_type(name).ok_or_else(|| unknown_type(name))
}

impl Machine {
    /// Creates an object from options that passed [`check`] (the same way for `-object` and `object-add`).
    ///
    /// # Errors
    /// The id is taken, or the object refuses its options.
    pub fn create_object(&mut self, qom_type: &str, id: &str, props: &Dict) -> QResult<()> {
        let ty = known_type(qom_type)?;
        if self.objects.get(id).is_some() {
            return Err(qerr!("attempt to add duplicate property '{id}' to object (type 'container')"));
        }
        let mut obj = (ty.create)();
        obj.prepare(self);
        for (name, value) in props.iter() {
            let json = value.to_json();
            if !obj.set_prop(ty.name, name, &PropInput::Json(&json))? {
                return Err(qerr!("Property '{}.{name}' not found", ty.name));
            }
        }
        obj.complete(self, id)?;
        self.objects.list.push(ObjectNode { id: id.to_string(), ty, obj: Some(obj), users: 0 });
        Ok(())
    }

    /// `object-add`: checks typed arguments (JSON) and creates.
    ///
    /// # Errors
    /// As [`check`] and [`Self::create_object`].
    pub fn object_add(&mut self, qom_type: &str, id: &str, props: &Dict, mode: Mode) -> QResult<()> {
        let props = check(qom_type, props, mode)?;
        if !valid_id(id) {
            return Err(qerr!("Parameter 'id' expects an identifier"));
        }
        self.create_object(qom_type, id, &props)
    }

    /// `object-del`.
    ///
    /// # Errors
    /// There is no such object, or it is in use.
    pub fn object_del(&mut self, id: &str) -> QResult<()> {
        let at = self.objects.list.iter().position(|n| n.id == id);
        let at = at.ok_or_else(|| qerr!("object '{id}' not found"))?;
        if self.objects.in_use(id) {
            return Err(qerr!("object '{id}' is in use, can not be deleted"));
        }
        let node = self.objects.list.remove(at);
        if let Some(mut obj) = node.obj {
            obj.removed(self, id);
        }
        Ok(())
    }

    /// `qom-set` on an object.
    ///
    /// # Errors
    /// There is no such object or property, it cannot be changed any more, or the value is bad.
    pub fn object_set(&mut self, id: &str, name: &str, value: &serde_json::Value) -> QResult<()> {
        let n = self.objects.get_mut(id).ok_or_else(|| QError::device_not_found(id))?;
        let ty = n.ty.name;
        let Some(obj) = n.obj.as_mut() else { return Err(qerr!("object is busy")) };
        if obj.change(ty, name, &PropInput::Json(value))? {
            Ok(())
        } else {
            Err(qerr!("Property '{ty}.{name}' not found"))
        }
    }
}

/// Whether `id` may name an object.
pub fn valid_id(id: &str) -> bool {
    let mut chars = id.bytes();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
}

/// Builds options from pairs (boards that make objects themselves).
pub(crate) fn options<const N: usize>(pairs: [(&str, Value); N]) -> Dict {
    pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}
