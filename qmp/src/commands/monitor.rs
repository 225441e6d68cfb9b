//! Commands about the monitor itself.

use crate::monitors::MonitorCx;
use crate::types::{Describe, Empty, Made, Members, Schema};
use crate::{qapi_enum, qapi_struct, table, version};
use rqemu_machine::{qerr, ErrorClass, QError, QResult};
use serde_json::{json, Map, Value};

qapi_enum! {
    /// Capabilities that a client may ask for.
    pub enum QmpCapability {
        /// Out-of-band commands.
        Oob = "oob",
    }
    /// Types of option parameters.
    pub enum CommandLineParameterType {
        String = "string",
        Boolean = "boolean",
        Number = "number",
        Size = "size",
    }
    /// Kinds of schema entries.
    pub enum SchemaMetaType {
        Builtin = "builtin",
        Enum = "enum",
        Array = "array",
        Object = "object",
        Alternate = "alternate",
        Command = "command",
        Event = "event",
    }
}

qapi_enum! {
    /// Types of JSON.
    pub enum JsonType {
        String = "string",
        Number = "number",
        Int = "int",
        Boolean = "boolean",
        Null = "null",
        Object = "object",
        Array = "array",
        Value = "value",
    }
}

/// Element of `query-qmp-schema`; what is in it depends on the kind of entry.
#[derive(Clone, Copy, Debug)]
pub struct SchemaInfo;

impl Describe for SchemaInfo {
    fn describe(schema: &mut Schema) -> String {
        schema.object("schema entry", |s| {
            let mut m = Members::default();
            m.add::<String>(s, "name");
            m.add::<SchemaMetaType>(s, "meta-type");
            m.add::<Option<Vec<String>>>(s, "features");
            let branches = [
                ("builtin", SchemaInfoBuiltin::describe(s)),
                ("enum", SchemaInfoEnum::describe(s)),
                ("array", SchemaInfoArray::describe(s)),
                ("object", SchemaInfoObject::describe(s)),
                ("alternate", SchemaInfoAlternate::describe(s)),
                ("command", SchemaInfoCommand::describe(s)),
                ("event", SchemaInfoEvent::describe(s)),
            ];
            for (kind, ty) in branches {
                m.branch("meta-type", kind, ty);
            }
            m
        })
    }
}

qapi_struct! {
    /// Arguments of `qmp_capabilities`.
    pub struct QmpCapabilities {
        /// What to turn on.
        enable: Option<Vec<QmpCapability>>,
    }
    /// Three numbers.
    pub struct VersionTriple {
        /// First.
        major: i64,
        /// Second.
        minor: i64,
        /// Third.
        micro: i64,
    }
    /// Reply of `query-version`.
    pub struct VersionInfo {
        /// Version of QEMU.
        qemu: VersionTriple,
        /// Package string.
        package: String,
    }
    /// Element of `query-commands`.
    pub struct CommandInfo {
        /// Name.
        name: String,
    }
    /// A built-in type.
    pub struct SchemaInfoBuiltin {
        /// Type in JSON.
        json_type: JsonType,
    }
    /// A value of an enumeration.
    pub struct SchemaInfoEnumMember {
        /// Name.
        name: String,
        /// Features.
        features: Option<Vec<String>>,
    }
    /// An enumeration.
    pub struct SchemaInfoEnum {
        /// Values.
        members: Vec<SchemaInfoEnumMember>,
        /// Their names.
        values: Vec<String>,
    }
    /// A list.
    pub struct SchemaInfoArray {
        /// Type of the elements.
        element_type: String,
    }
    /// A member of an object.
    pub struct SchemaInfoObjectMember {
        /// Name.
        name: String,
        /// Type.
        type_ as "type": String,
        /// Default.
        default: Option<Value>,
        /// Features.
        features: Option<Vec<String>>,
    }
    /// A branch of a union.
    pub struct SchemaInfoObjectVariant {
        /// Value of the tag.
        case: String,
        /// Type with the members.
        type_ as "type": String,
    }
    /// An object.
    pub struct SchemaInfoObject {
        /// Members.
        members: Vec<SchemaInfoObjectMember>,
        /// Member that chooses the branch.
        tag: Option<String>,
        /// Branches.
        variants: Option<Vec<SchemaInfoObjectVariant>>,
    }
    /// A type that an alternate may be.
    pub struct SchemaInfoAlternateMember {
        /// Type.
        type_ as "type": String,
    }
    /// One of several types.
    pub struct SchemaInfoAlternate {
        /// Types.
        members: Vec<SchemaInfoAlternateMember>,
    }
    /// A command.
    pub struct SchemaInfoCommand {
        /// Arguments.
        arg_type: String,
        /// Reply.
        ret_type: String,
        /// It may be given out of band.
        allow_oob: Option<bool>,
    }
    /// An event.
    pub struct SchemaInfoEvent {
        /// Data.
        arg_type: String,
    }
    /// Arguments of `query-command-line-options`.
    pub struct OptionName {
        /// Option.
        option: Option<String>,
    }
    /// A parameter of an option.
    pub struct CommandLineParameterInfo {
        /// Name.
        name: String,
        /// Type.
        type_ as "type": CommandLineParameterType,
        /// Description.
        help: Option<String>,
        /// Default.
        default: Option<String>,
    }
    /// An option.
    pub struct CommandLineOptionInfo {
        /// Option.
        option: String,
        /// Parameters.
        parameters: Vec<CommandLineParameterInfo>,
    }
    /// Arguments of `human-monitor-command`.
    pub struct HumanMonitorCommand {
        /// The line.
        command_line: String,
        /// CPU that it looks at.
        cpu_index: Option<i64>,
    }
}

pub(super) fn qmp_capabilities(cx: &mut MonitorCx<'_, '_>, args: QmpCapabilities) -> QResult<()> {
    if cx.mon.negotiated {
        let text = "Capabilities negotiation is already complete, command ignored";
        return Err(QError::new(ErrorClass::CommandNotFound, text));
    }
    cx.after.negotiated = Some(args.enable.is_some_and(|e| e.contains(&QmpCapability::Oob)));
    Ok(())
}

pub(super) fn query_version(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<VersionInfo> {
    let v = version::QEMU;
    let qemu = VersionTriple { major: v.major.into(), minor: v.minor.into(), micro: v.micro.into() };
    Ok(VersionInfo { qemu, package: version::PACKAGE.into() })
}

pub(super) fn query_commands(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<CommandInfo>> {
    Ok(table::command_names().map(|name| CommandInfo { name: name.into() }).collect())
}

pub(super) fn query_qmp_schema(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Made<Vec<SchemaInfo>>> {
    Ok(Value::Array(table::schema()).into())
}

pub(super) fn query_command_line_options(
    cx: &mut MonitorCx<'_, '_>,
    args: OptionName,
) -> QResult<Made<Vec<CommandLineOptionInfo>>> {
    let mut list = Vec::new();
    for o in cx.env.command_line_options() {
        if args.option.as_ref().is_some_and(|name| *name != o.option) {
            continue;
        }
        let parameters: Vec<Value> = o
            .parameters
            .iter()
            .map(|p| {
                let mut m = Map::new();
                m.insert("name".into(), p.name.as_str().into());
                if let Some(help) = &p.help {
                    m.insert("help".into(), help.as_str().into());
                }
                if let Some(default) = &p.default {
                    m.insert("default".into(), default.as_str().into());
                }
                m.insert("type".into(), p.ty.into());
                m.into()
            })
            .collect();
        list.push(json!({"parameters": parameters, "option": o.option}));
    }
    match args.option {
        Some(name) if list.is_empty() => Err(qerr!("invalid option name: {name}")),
        _ => Ok(Value::Array(list).into()),
    }
}

pub(super) fn human_monitor_command(
    cx: &mut MonitorCx<'_, '_>,
    args: HumanMonitorCommand,
) -> QResult<String> {
    let cpu = match args.cpu_index {
        Some(i) => usize::try_from(i)
            .ok()
            .filter(|i| *i < cx.m.info.cpus.len().max(cx.m.run.vcpus.tids().len()))
            .ok_or_else(|| qerr!("Parameter 'cpu-index' expects a CPU number"))?,
        None => 0,
    };
    let mut mon =
        crate::monitors::MonState { cpu, chr: cx.mon.chr, format: cx.mon.format, ..Default::default() };
    let mut inner = MonitorCx {
        m: cx.m,
        mon: &mut mon,
        env: cx.env,
        fds: cx.fds,
        after: crate::monitors::After::default(),
    };
    let text = crate::hmp::execute(&mut inner, &args.command_line);
    let (defer, last) = (inner.after.defer, inner.after.last);
    // The next command may leave out what this one has said.
    cx.mon.format = mon.format;
    cx.after.defer |= defer;
    cx.after.last |= last;
    Ok(text.replace('\n', "\r\n"))
}
