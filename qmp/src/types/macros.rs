//! The definition language for QAPI types.

/// Name of a member on the wire: given, or the field's with dashes for underscores.
#[doc(hidden)]
#[macro_export]
macro_rules! wire_name {
    ($field:ident as $wire:literal) => {
        $wire
    };
    ($field:ident) => {{
        const FIELD: &str = stringify!($field);
        const BYTES: [u8; FIELD.len()] = $crate::types::dashed(FIELD);
        const NAME: &str = match std::str::from_utf8(&BYTES) {
            Ok(name) => name,
            Err(_) => FIELD,
        };
        NAME
    }};
}

/// The bytes of `name` with `-` for `_`.
#[doc(hidden)]
pub const fn dashed<const N: usize>(name: &str) -> [u8; N] {
    let (from, mut to, mut i) = (name.as_bytes(), [0; N], 0);
    while i < N {
        to[i] = if from[i] == b'_' { b'-' } else { from[i] };
        i += 1;
    }
    to
}

/// Defines a struct. Field names turn into member names with dashes; `field as "name"` gives another name.
///
/// ```
/// rqemu_qmp::qapi_struct! {
///     /// Reply of `query-kvm`.
///     pub struct KvmInfo {
///         /// KVM is in use.
///         enabled: bool,
///         /// KVM is compiled in.
///         present: bool,
///     }
/// }
/// ```
#[macro_export]
macro_rules! qapi_struct {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$fmeta:meta])* $field:ident $(as $wire:literal)? : $ty:ty),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
        }

        impl $crate::types::QapiObject for $name {
            fn read(from: &mut $crate::types::ObjectIn<'_>) -> rqemu_machine::QResult<Self> {
                Ok(Self { $($field: from.take($crate::wire_name!($field $(as $wire)?))?,)* })
            }
            fn write(self, to: &mut serde_json::Map<String, serde_json::Value>) {
                $(
                    if let Some(value) = $crate::types::ToQapi::to_qapi(self.$field) {
                        to.insert($crate::wire_name!($field $(as $wire)?).into(), value);
                    }
                )*
            }
            fn members(schema: &mut $crate::types::Schema) -> $crate::types::Members {
                let mut members = $crate::types::Members::default();
                $(members.add::<$ty>(schema, $crate::wire_name!($field $(as $wire)?));)*
                members
            }
        }

        $crate::qapi_object!($name);
    )*};
}

/// Makes a [`QapiObject`](crate::types::QapiObject) a type of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! qapi_object {
    ($name:ident) => {
        impl $crate::types::FromQapi for $name {
            fn from_qapi(
                value: serde_json::Value,
                at: &$crate::types::Path<'_>,
            ) -> rqemu_machine::QResult<Self> {
                $crate::types::ObjectIn::read_all(value, at)
            }
        }
        impl $crate::types::ToQapi for $name {
            fn to_qapi(self) -> Option<serde_json::Value> {
                let mut map = serde_json::Map::new();
                $crate::types::QapiObject::write(self, &mut map);
                Some(map.into())
            }
        }
        impl $crate::types::Describe for $name {
            fn describe(schema: &mut $crate::types::Schema) -> String {
                schema.object(concat!(module_path!(), "::", stringify!($name)), |s| {
                    <Self as $crate::types::QapiObject>::members(s)
                })
            }
        }
    };
}

/// Defines an enumeration with the names of its values on the wire.
///
/// ```
/// rqemu_qmp::qapi_enum! {
///     /// What a reset does.
///     pub enum Reboot {
///         /// It resets.
///         Reset = "reset",
///         /// It ends the program.
///         Shutdown = "shutdown",
///     }
/// }
/// assert_eq!(Reboot::Shutdown.as_str(), "shutdown");
/// ```
#[macro_export]
macro_rules! qapi_enum {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$vmeta:meta])* $variant:ident = $wire:literal),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
        }

        impl $name {
            /// All values, in order.
            #[allow(dead_code)]
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $wire,)*
                }
            }

            /// The value of that name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($wire => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl $crate::types::FromQapi for $name {
            fn from_qapi(value: serde_json::Value, at: &$crate::types::Path<'_>) -> rqemu_machine::QResult<Self> {
                let name = <String as $crate::types::FromQapi>::from_qapi(value, at)?;
                Self::by_name(&name)
                    .ok_or_else(|| rqemu_machine::qerr!("Parameter '{}' does not accept value '{name}'", at.leaf()))
            }
        }
        impl $crate::types::ToQapi for $name {
            fn to_qapi(self) -> Option<serde_json::Value> {
                Some(self.as_str().into())
            }
        }
        impl $crate::types::Describe for $name {
            fn describe(schema: &mut $crate::types::Schema) -> String {
                let key = concat!(module_path!(), "::", stringify!($name));
                schema.enumeration(key, &[$($wire),*])
            }
        }
    )*};
}

/// Defines a union: the member `tag` says which branch's members stand beside it.
/// of the object.
///
/// ```
/// use rqemu_qmp::types::Empty;
/// rqemu_qmp::qapi_struct! {
///     /// Data of a key by number.
///     pub struct Number {
///         /// The number.
///         data: i64,
///     }
/// }
/// rqemu_qmp::qapi_union! {
///     /// A key.
///     pub union Key("type") {
///         "number" => Number(Number),
///         "none" => None(Empty),
///     }
/// }
/// ```
#[macro_export]
macro_rules! qapi_union {
    ($(
        $(#[$meta:meta])*
        pub union $name:ident($tag:literal) {
            $($(#[$vmeta:meta])* $wire:literal => $variant:ident($ty:ty)),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum $name {
            $($(#[$vmeta])* $variant($ty),)*
        }

        impl $crate::types::QapiObject for $name {
            fn read(from: &mut $crate::types::ObjectIn<'_>) -> rqemu_machine::QResult<Self> {
                let tag: String = from.take($tag)?;
                match tag.as_str() {
                    $($wire => Ok(Self::$variant(<$ty as $crate::types::QapiObject>::read(from)?)),)*
                    _ => Err(rqemu_machine::qerr!("Parameter '{}' does not accept value '{tag}'", $tag)),
                }
            }
            fn write(self, to: &mut serde_json::Map<String, serde_json::Value>) {
                match self {
                    $(Self::$variant(branch) => {
                        to.insert($tag.into(), $wire.into());
                        $crate::types::QapiObject::write(branch, to);
                    })*
                }
            }
            fn members(schema: &mut $crate::types::Schema) -> $crate::types::Members {
                let mut members = $crate::types::Members::default();
                let kind = concat!(module_path!(), "::", stringify!($name), "Kind");
                let kind = schema.enumeration(kind, &[$($wire),*]);
                members.members.push(serde_json::json!({"name": $tag, "type": kind}));
                $(
                    let branch = <$ty as $crate::types::Describe>::describe(schema);
                    members.branch($tag, $wire, branch);
                )*
                members
            }
        }

        $crate::qapi_object!($name);
    )*};
}
