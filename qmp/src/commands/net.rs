//! Network back ends and cards.

use crate::monitors::MonitorCx;
use crate::types::{Describe, Members, Raw, Schema};
use crate::{qapi_enum, qapi_struct};
use rqemu_machine::net::{Announce, RxFilter, RxState, NET_KINDS};
use rqemu_machine::spec::schema::{Field, Kind, NETDEV};
use rqemu_machine::spec::visit::Mode;
use rqemu_machine::spec::{Dict, Value as SpecValue};
use rqemu_machine::QResult;
use serde_json::json;

qapi_struct! {
    /// Arguments of `netdev_del`.
    pub struct NetdevDel {
        /// Id.
        id: String,
    }
    /// Arguments of `set_link`.
    pub struct SetLink {
        /// Card or back end.
        name: String,
        /// Whether the link is up.
        up: bool,
    }
    /// Arguments of `query-rx-filter`.
    pub struct QueryRxFilter {
        /// Card; all cards without it.
        name: Option<String>,
    }
    /// Element of `query-rx-filter`.
    pub struct RxFilterInfo {
        /// Card.
        name: String,
        /// Everything passes.
        promiscuous: bool,
        /// Multicast frames.
        multicast: RxStateName,
        /// Unicast frames.
        unicast: RxStateName,
        /// Frames with a VLAN tag.
        vlan: RxStateName,
        /// Broadcasts.
        broadcast_allowed: bool,
        /// The multicast table was too small.
        multicast_overflow: bool,
        /// The unicast table was too small.
        unicast_overflow: bool,
        /// The card's address.
        main_mac: String,
        /// VLANs that pass.
        vlan_table: Vec<i64>,
        /// More unicast addresses that pass.
        unicast_table: Vec<String>,
        /// Multicast addresses that pass.
        multicast_table: Vec<String>,
    }
    /// Arguments of `announce-self`.
    pub struct AnnounceSelf {
        /// Milliseconds before the second round.
        initial: i64,
        /// Most milliseconds between rounds.
        max: i64,
        /// Rounds.
        rounds: i64,
        /// Milliseconds by which the time between rounds grows.
        step: i64,
        /// Cards; all without it.
        interfaces: Option<Vec<String>>,
        /// Name of the announcement.
        id: Option<String>,
    }
    /// Data of `NIC_RX_FILTER_CHANGED`.
    pub struct RxFilterChanged {
        /// Id of the card.
        name: Option<String>,
        /// QOM path.
        path: String,
    }
}

qapi_enum! {
    /// Which frames of a kind pass.
    pub enum RxStateName {
        /// Those in the tables.
        Normal = "normal",
        /// None.
        None = "none",
        /// All.
        All = "all",
    }
}

impl From<RxState> for RxStateName {
    fn from(s: RxState) -> Self {
        match s {
            RxState::Normal => Self::Normal,
            RxState::None => Self::None,
            RxState::All => Self::All,
        }
    }
}

impl RxFilterInfo {
    fn new(name: String, f: RxFilter) -> Self {
        let text = |list: &[rqemu_machine::qom::MacAddr]| list.iter().map(ToString::to_string).collect();
        Self {
            name,
            promiscuous: f.promiscuous,
            multicast: f.multicast.into(),
            unicast: f.unicast.into(),
            vlan: f.vlan.into(),
            broadcast_allowed: f.broadcast_allowed,
            multicast_overflow: f.multicast_overflow,
            unicast_overflow: f.unicast_overflow,
            main_mac: f.main_mac.to_string(),
            vlan_table: f.vlan_table.iter().map(|v| i64::from(*v)).collect(),
            unicast_table: text(&f.unicast_table),
            multicast_table: text(&f.multicast_table),
        }
    }
}

/// Arguments of `netdev_add`: described from the types that there are.
#[derive(Clone, Debug)]
pub struct NetdevOptions;

impl Describe for NetdevOptions {
    fn describe(schema: &mut Schema) -> String {
        schema.object("netdev_add", |schema| {
            let (kind, text) =
                (schema.enumeration("netdev types", NET_KINDS), schema.builtin("str", "string"));
            let mut members = Members::default();
            members.members.push(json!({"name": "id", "type": text}));
            members.members.push(json!({"name": "type", "type": kind}));
            let branches = NETDEV.tag.map_or(&[][..], |t| t.branches);
            for (name, fields) in branches.iter().filter(|(name, _)| NET_KINDS.contains(name)) {
                let ty = schema
                    .object(&format!("{:p}+{}", fields.as_ptr(), fields.len()), |s| describe(s, fields));
                members.branch("type", name, ty);
            }
            members
        })
    }
}

fn describe(schema: &mut Schema, fields: &[Field]) -> Members {
    let mut members = Members::default();
    for f in fields {
        let ty = type_name(schema, &f.kind);
        members.members.push(if f.required {
            json!({"name": f.name, "type": ty})
        } else {
            json!({"name": f.name, "default": null, "type": ty})
        });
    }
    members
}

fn type_name(schema: &mut Schema, kind: &Kind) -> String {
    match kind {
        Kind::Any => schema.builtin("any", "value"),
        Kind::Str => schema.builtin("str", "string"),
        Kind::Bool => schema.builtin("bool", "boolean"),
        Kind::Int(_) | Kind::Size => schema.builtin("int", "int"),
        Kind::Enum(names) => schema.enumeration(&format!("{:p}+{}", names.as_ptr(), names.len()), names),
        Kind::Struct(s) => {
            let key = format!("{:p}+{}", s.fields.as_ptr(), s.fields.len());
            schema.object(&key, |schema| describe(schema, s.fields))
        }
        Kind::List(item) => {
            let element = type_name(schema, item);
            schema.array(element)
        }
    }
}

pub(super) fn netdev_add(cx: &mut MonitorCx<'_, '_>, args: Raw<NetdevOptions>) -> QResult<()> {
    let dict: Dict = args.map.into_iter().map(|(k, v)| (k, SpecValue::from_json(v))).collect();
    cx.m.netdev_add(dict, Mode::Json)
}

pub(crate) fn netdev_del(cx: &mut MonitorCx<'_, '_>, args: NetdevDel) -> QResult<()> {
    cx.m.netdev_del(&args.id)
}

pub(crate) fn set_link(cx: &mut MonitorCx<'_, '_>, args: SetLink) -> QResult<()> {
    cx.m.set_link(&args.name, args.up)
}

pub(super) fn query_rx_filter(cx: &mut MonitorCx<'_, '_>, args: QueryRxFilter) -> QResult<Vec<RxFilterInfo>> {
    let list = cx.m.rx_filters(args.name.as_deref())?;
    Ok(list.into_iter().map(|(name, f)| RxFilterInfo::new(name, f)).collect())
}

pub(super) fn announce_self(cx: &mut MonitorCx<'_, '_>, args: AnnounceSelf) -> QResult<()> {
    cx.m.announce_self(Announce {
        initial: args.initial,
        max: args.max,
        rounds: args.rounds,
        step: args.step,
        interfaces: args.interfaces,
        id: args.id.unwrap_or_default(),
    });
    Ok(())
}
