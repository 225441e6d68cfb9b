//! `q` and `Q` packets.

use super::packet::{from_hex, to_hex, MAX_PACKET};
use super::{cpus, regs, Gdb, BAD_REQUEST};
use crate::event_loop::MonitorHost;
use crate::shared::MachineLock;

/// The answer to a query.
pub fn answer(g: &mut Gdb, m: &mut MachineLock<'_>, host: &mut dyn MonitorHost, packet: &str) -> String {
    let (name, args) = packet.split_once(':').unwrap_or((packet, ""));
    match name {
        "qSupported" => {
            format!("PacketSize={MAX_PACKET:x};qXfer:features:read+;vContSupported+;QStartNoAckMode+")
        }
        "QStartNoAckMode" => {
            g.no_ack = true;
            "OK".into()
        }
        "qXfer" => features(args),
        "qC" => format!("QC{:02x}", g.cpu + 1),
        "qAttached" => "1".into(),
        "qfThreadInfo" => {
            let ids: Vec<String> = (1..=cpus(m)).map(|i| format!("{i:02x}")).collect();
            format!("m{}", ids.join(","))
        }
        "qsThreadInfo" => "l".into(),
        "qqemu.PhyMemMode" => u8::from(g.physical).to_string(),
        "Qqemu.PhyMemMode" => {
            g.physical = args != "0";
            "OK".into()
        }
        _ => {
            if let Some(id) = packet.strip_prefix("qThreadExtraInfo,") {
                return thread_info(m, id);
            }
            if let Some(command) = packet.strip_prefix("qRcmd,") {
                return monitor(m, host, command);
            }
            String::new()
        }
    }
}

/// `features:read:target.xml:offset,length`.
fn features(args: &str) -> String {
    let Some(range) = args.strip_prefix("features:read:target.xml:") else { return "E00".into() };
    let numbers = range
        .split_once(',')
        .and_then(|(o, l)| Some((usize::from_str_radix(o, 16).ok()?, usize::from_str_radix(l, 16).ok()?)));
    let Some((offset, len)) = numbers else { return BAD_REQUEST.into() };
    let xml = regs::target_xml();
    let rest = xml.get(offset.min(xml.len())..).unwrap_or("");
    let len = len.min(MAX_PACKET - 8);
    match rest.get(..len).filter(|_| rest.len() > len) {
        Some(part) => format!("m{part}"),
        None => format!("l{rest}"),
    }
}

fn thread_info(m: &MachineLock<'_>, id: &str) -> String {
    let Some(cpu) = super::thread(id).filter(|t| *t < cpus(m)) else { return BAD_REQUEST.into() };
    to_hex(format!("CPU#{cpu} [{}]", m.run.state().as_str()).as_bytes())
}

/// `monitor COMMAND`: the text of the monitor's answer.
fn monitor(m: &mut MachineLock<'_>, host: &mut dyn MonitorHost, hex: &str) -> String {
    let Some(line) = from_hex(hex).and_then(|b| String::from_utf8(b).ok()) else { return BAD_REQUEST.into() };
    let text = host.monitor_command(m, &line);
    if text.is_empty() {
        return "OK".into();
    }
    to_hex(&text.as_bytes()[..text.len().min(MAX_PACKET / 2 - 16)])
}
