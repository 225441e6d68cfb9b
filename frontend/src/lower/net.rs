//! Network backends and NICs.

use rqemu_machine::spec::schema;
use rqemu_machine::spec::value::Value;
use rqemu_machine::spec::visit::{self, Mode};
use rqemu_machine::spec::{Dict, Loc, NetPeer, NetdevSpec, NicSpec};
use rqemu_machine::{qerr, QError, QResult};

use super::{at, is_help, Arg, Cx, Res, Stop};
use crate::groups;
use crate::opts::Opts;
use crate::{json, keyval, HelpRequest};

/// `-netdev`. The newer types (`stream`, `dgram`) take dotted keys, the others flat options.
pub fn netdev(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    // Who names a back end wants no network besides.
    cx.spec.defaults.net = false;
    let dict = if json::is_json(arg.value) {
        at(&arg.loc, json::parse_object(arg.value))
            .and_then(|d| at(&arg.loc, visit::check(d, &schema::NETDEV, Mode::Json)))?
    } else if is_modern(arg.value) {
        let dict = at(&arg.loc, keyval::parse_no_help(arg.value, Some("type")))?;
        at(&arg.loc, visit::check(dict, &schema::NETDEV, Mode::Keyval))?
    } else {
        let opts = cx.opts(&groups::NETDEV, arg.value, &arg.loc)?;
        return cx.add(opts);
    };
    cx.late.modern_netdevs.push((dict, arg.loc.clone()));
    Ok(())
}

/// True when the type is one that came with dotted keys.
fn is_modern(text: &str) -> bool {
    let kind = crate::grammar::items(text, true).into_iter().find_map(|i| match i {
        crate::grammar::Item::Bare(kind) => Some(kind),
        crate::grammar::Item::Pair(key, value) if key == "type" => Some(value),
        _ => None,
    });
    matches!(kind.as_deref(), Some("stream" | "dgram"))
}

/// Backends and NICs of all three options.
pub fn finish(cx: &mut Cx) -> Res {
    for (dict, loc) in std::mem::take(&mut cx.late.modern_netdevs) {
        let spec = at(&loc, netdev_spec(dict, &loc))?;
        push_netdev(cx, spec)?;
    }
    for mut opts in cx.take(&groups::NETDEV) {
        if opts.get("type").is_some_and(is_help) {
            return Err(Stop::Help(HelpRequest::Netdev));
        }
        let loc = opts.loc.clone();
        at(&loc, split_ipv6_net(&mut opts))?;
        let dict = at(&loc, visit::check(with_id(opts), &schema::NETDEV, Mode::Opts))?;
        let spec = at(&loc, netdev_spec(dict, &loc))?;
        push_netdev(cx, spec)?;
    }
    for opts in cx.take(&groups::NIC) {
        nic_option(cx, opts)?;
    }
    for opts in cx.take(&groups::NET) {
        net_option(cx, opts)?;
    }
    Ok(())
}

/// `ipv6-net=prefix[/length]` of user networks as the two options it stands for.
fn split_ipv6_net(opts: &mut Opts) -> QResult<()> {
    let Some(net) = opts.take("ipv6-net") else { return Ok(()) };
    let (prefix, length) = net.split_once('/').unwrap_or((&net, "64"));
    if prefix.is_empty() || length.parse::<u32>().is_err() {
        return Err(qerr!("Parameter 'ipv6-prefixlen' expects a number"));
    }
    opts.items.push(("ipv6-prefix".into(), prefix.into()));
    opts.items.push(("ipv6-prefixlen".into(), length.into()));
    Ok(())
}

fn with_id(mut opts: Opts) -> Dict {
    let id = opts.id.take();
    let mut dict = opts.into_dict();
    if let Some(id) = id {
        dict.push("id", Value::Text(id));
    }
    dict
}

fn not_built_in(kind: &str) -> QError {
    qerr!("network backend '{kind}' is not compiled into this binary")
}

fn netdev_spec(mut dict: Dict, loc: &Loc) -> QResult<NetdevSpec> {
    let kind = dict.remove_str("type").unwrap_or_default();
    if matches!(kind.as_str(), "nic" | "none" | "netmap") {
        return Err(not_built_in(&kind));
    }
    let id = dict.remove_str("id");
    Ok(NetdevSpec { kind, id, props: dict, peer: NetPeer::None, loc: loc.clone() })
}

fn push_netdev(cx: &mut Cx, spec: NetdevSpec) -> Res {
    if let Some(id) = &spec.id {
        if cx.spec.netdevs.iter().any(|n| n.id.as_ref() == Some(id)) {
            return Err(Stop::error(&spec.loc, qerr!("Duplicate ID '{id}'")));
        }
    }
    cx.spec.netdevs.push(spec);
    Ok(())
}

/// Checks `-nic`/`-net` text; the type may be missing only where `default` says what it is then.
fn legacy(mut opts: Opts, default: Option<&str>) -> QResult<Dict> {
    split_ipv6_net(&mut opts)?;
    if let (None, Some(kind)) = (opts.get("type"), default) {
        opts.items.push(("type".into(), kind.into()));
    }
    visit::check(with_id(opts), &schema::NET_LEGACY, Mode::Opts)
}

/// True for the types that the older options do not know.
fn too_modern(opts: &Opts) -> bool {
    matches!(opts.get("type"), Some("stream" | "dgram"))
}

/// `-nic type,model=…,mac=…,…`: a NIC and its backend.
fn nic_option(cx: &mut Cx, mut opts: Opts) -> Res {
    let loc = opts.loc.clone();
    if opts.get("type") == Some("none") {
        return Ok(());
    }
    let model = opts.take("model");
    if model.as_deref().is_some_and(is_help) {
        return Err(Stop::Help(HelpRequest::NicModels));
    }
    let multicast = "NIC cannot have multicast MAC address";
    let mac = opts.take("mac").map(|text| at(&loc, parse_mac(&text, multicast))).transpose()?;
    if too_modern(&opts) {
        return Err(Stop::error(&loc, qerr!("Parameter 'type' is missing")));
    }
    let dict = at(&loc, legacy(opts, Some("user")))?;
    let mut netdev = at(&loc, netdev_spec(dict, &loc))?;
    netdev.peer = NetPeer::Index(cx.spec.nics.len());
    let peer = NetPeer::Index(cx.spec.netdevs.len());
    push_netdev(cx, netdev)?;
    cx.spec.nics.push(NicSpec { model, mac, name: None, addr: None, vectors: None, peer, loc });
    Ok(())
}

/// `-net nic…` or `-net backend…`: a port of hub 0.
fn net_option(cx: &mut Cx, opts: Opts) -> Res {
    let loc = opts.loc.clone();
    if opts.get("model").is_some_and(is_help) {
        return Err(Stop::Help(HelpRequest::NicModels));
    }
    if too_modern(&opts) {
        return Err(Stop::error(&loc, qerr!("Parameter 'type' is missing")));
    }
    let mut dict = at(&loc, legacy(opts, None))?;
    match dict.get_str("type").unwrap_or_default() {
        "none" => Ok(()),
        "nic" => {
            let nic = at(&loc, net_nic(&mut dict, &loc))?;
            cx.spec.nics.push(nic);
            Ok(())
        }
        "hubport" => {
            Err(Stop::error(&loc, qerr!("network backend 'hubport' is only supported with -netdev/-nic")))
        }
        _ => {
            let mut netdev = at(&loc, netdev_spec(dict, &loc))?;
            netdev.peer = NetPeer::Hub(0);
            push_netdev(cx, netdev)
        }
    }
}

fn net_nic(dict: &mut Dict, loc: &Loc) -> QResult<NicSpec> {
    let multicast = "NIC cannot have multicast MAC address (odd 1st byte)";
    let mac = dict.remove_str("macaddr").map(|text| parse_mac(&text, multicast)).transpose()?;
    let vectors = dict.get_u64("vectors")?.map(|v| v as u32);
    if vectors.is_some_and(|v| v > 0x7ff_ffff) {
        return Err(qerr!("invalid # of vectors: {}", vectors.unwrap_or(0)));
    }
    Ok(NicSpec {
        model: dict.remove_str("model"),
        mac,
        name: dict.remove_str("id"),
        addr: dict.remove_str("addr"),
        vectors,
        peer: dict.remove_str("netdev").map_or(NetPeer::Hub(0), NetPeer::Netdev),
        loc: loc.clone(),
    })
}

/// Six hexadecimal numbers with `:` or `-` between, not a multicast address.
fn parse_mac(text: &str, multicast: &str) -> QResult<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        *byte = parts
            .next()
            .filter(|p| !p.starts_with('+'))
            .and_then(|p| u32::from_str_radix(p, 16).ok())
            .map(|v| v as u8)
            .ok_or_else(|| qerr!("invalid syntax for ethernet address"))?;
    }
    if parts.next().is_some() {
        return Err(qerr!("invalid syntax for ethernet address"));
    }
    if mac[0] & 1 != 0 {
        return Err(qerr!("{multicast}"));
    }
    Ok(mac)
}
