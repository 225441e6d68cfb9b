//! CPU models.

use crate::monitors::MonitorCx;
use crate::types::Empty;
use crate::{qapi_enum, qapi_struct};
use rqemu_machine::builder::cpu_caps;
use rqemu_machine::cpu::{self, Expansion};
use rqemu_machine::QResult;
use serde_json::Value;

qapi_enum! {
    /// How far an expansion goes.
    pub enum CpuModelExpansionType {
        Static = "static",
        Full = "full",
    }
}

qapi_struct! {
    /// Element of `query-cpu-definitions`.
    pub struct CpuDefinitionInfo {
        /// Name.
        name: String,
        /// Machines with it can move between hosts.
        migration_safe: Option<bool>,
        /// It never changes.
        static_ as "static": bool,
        /// Features that this host lacks for it.
        unavailable_features: Option<Vec<String>>,
        /// Class.
        typename: String,
        /// The model that this is another name of.
        alias_of: Option<String>,
        /// It will go away.
        deprecated: bool,
    }
    /// A model with changes.
    pub struct CpuModelInfo {
        /// Name.
        name: String,
        /// Properties.
        props: Option<Value>,
    }
    /// Arguments of `query-cpu-model-expansion`.
    pub struct QueryCpuModelExpansion {
        /// How far it goes.
        type_ as "type": CpuModelExpansionType,
        /// What to expand.
        model: CpuModelInfo,
    }
    /// Reply of `query-cpu-model-expansion`.
    pub struct CpuModelExpansionInfo {
        /// The expanded model.
        model: CpuModelInfo,
    }
}

pub(super) fn query_cpu_definitions(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<CpuDefinitionInfo>> {
    let caps = cpu_caps(cx.m)?;
    let one = |d: cpu::CpuDefinition| CpuDefinitionInfo {
        name: d.name.into(),
        migration_safe: Some(d.migration_safe),
        static_: d.is_static,
        unavailable_features: Some(d.unavailable_features.into_iter().map(Into::into).collect()),
        typename: d.typename.into(),
        alias_of: d.alias_of,
        deprecated: d.deprecated,
    };
    Ok(cpu::definitions(&caps).into_iter().map(one).collect())
}

pub(super) fn query_cpu_model_expansion(
    cx: &mut MonitorCx<'_, '_>,
    args: QueryCpuModelExpansion,
) -> QResult<CpuModelExpansionInfo> {
    let caps = cpu_caps(cx.m)?;
    let kind = match args.type_ {
        CpuModelExpansionType::Static => Expansion::Static,
        CpuModelExpansionType::Full => Expansion::Full,
    };
    // Properties that are no object change nothing.
    let props = args.model.props.as_ref().and_then(Value::as_object);
    let (name, props) = cpu::expand(kind, &args.model.name, props, &caps)?;
    Ok(CpuModelExpansionInfo { model: CpuModelInfo { name, props: Some(props.into()) } })
}
