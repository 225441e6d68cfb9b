//! Network.

use super::dev::split_opts;
use crate::commands::net::{self, NetdevDel, SetLink};
use crate::hmp::{Args, HmpCx};
use rqemu_machine::net::{Announce, NET_KINDS};
use rqemu_machine::spec::visit::Mode;
use rqemu_machine::spec::{Dict, Value};

/// The first item without a name is the type.
fn netdev_dict(text: &str) -> Dict {
    let mut dict = Dict::new();
    for (i, (key, value)) in split_opts(text).into_iter().enumerate() {
        match key {
            Some(key) => dict.push(key, Value::text(value)),
            None if i == 0 => dict.push("type", Value::text(value)),
            None => match value.strip_prefix("no").filter(|rest| !rest.is_empty()) {
                Some(rest) => dict.push(rest, Value::text("off")),
                None => dict.push(value, Value::text("on")),
            },
        }
    }
    dict
}

pub(super) fn netdev_add(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let dict = netdev_dict(args.str("netdev"));
    let ty = dict.get_str("type").unwrap_or_default();
    if matches!(ty, "help" | "?") {
        h.line("Available netdev backend types:");
        for k in NET_KINDS {
            h.line(k);
        }
        return;
    }
    if let Some(id) = dict.get_str("id").filter(|id| h.cx.m.net_exists(id)) {
        eprintln!("Duplicate ID '{id}' for netdev");
        return h.line("Try \"help netdev_add\" for more information");
    }
    let result = h.cx.m.netdev_add(dict, Mode::Opts);
    h.report(result);
}

pub(super) fn netdev_del(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = net::netdev_del(h.cx, NetdevDel { id: args.str("id").into() });
    h.report(result);
}

pub(super) fn set_link(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = net::set_link(h.cx, SetLink { name: args.str("name").into(), up: args.int("up") != 0 });
    h.report(result);
}

pub(super) fn announce_self(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let interfaces = args.opt_str("interfaces").filter(|s| !s.is_empty());
    let interfaces = interfaces.map(|s| s.split(',').map(str::to_string).collect());
    let id = args.opt_str("id").unwrap_or_default().to_string();
    h.cx.m.announce_self(Announce { interfaces, id, ..Announce::default() });
}

/// An optional network's name and the rule.
fn network_and_rule(args: &Args) -> (Option<&str>, &str) {
    match args.opt_str("arg2") {
        Some(rule) => (Some(args.str("arg1")), rule),
        None => (None, args.str("arg1")),
    }
}

pub(super) fn hostfwd_add(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let (name, rule) = network_and_rule(args);
    if let Err(e) = h.cx.m.hostfwd_add(name, rule) {
        h.line(&e.desc);
    }
}

pub(super) fn hostfwd_remove(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let (name, rule) = network_and_rule(args);
    match h.cx.m.hostfwd_remove(name, rule) {
        Ok(text) => h.line(&text),
        Err(e) => h.line(&e.desc),
    }
}

pub(super) fn info_usernet(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let text = h.cx.m.net_user_info();
    h.out.push_str(&text);
}

pub(super) fn info_network(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let text = h.cx.m.net_info();
    h.out.push_str(&text);
}
