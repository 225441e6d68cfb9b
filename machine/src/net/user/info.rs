//! `info usernet`.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::User;

/// A line of the table.
fn line(state: &str, fd: i32, from: SocketAddr, to: SocketAddr, queues: (usize, usize)) -> String {
    let host = match from {
        SocketAddr::V4(a) if a.ip().is_unspecified() => "*".to_string(),
        a => a.ip().to_string(),
    };
    let (from, to_ip) = (from.port(), to.ip());
    let (recv, send) = queues;
    format!(
        "  {state:<16} {fd:4} {host:>15} {from:5} {:>15} {:5} {recv:5} {send:5}\n",
        to_ip.to_string(),
        to.port()
    )
}

impl User {
    /// The table of connections, newest first.
    pub fn connections(&mut self) -> String {
        self.touch();
        let mut out =
            String::from("  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n");
        let mut tcp: Vec<(u64, String)> = Vec::new();
        for f in self.host_forwards.iter().flatten() {
            tcp.push((f.serial, line("TCP[HOST_FORWARD]", f.listener.as_raw_fd(), f.host, f.guest, (0, 0))));
        }
        for c in self.tcp.conns.iter().flatten() {
            let (from, to) = if c.forwarded { (c.remote, c.guest) } else { (c.guest, c.remote) };
            let state = format!("TCP[{}]", c.state_name());
            tcp.push((c.serial(), line(&state, c.host.fd.as_raw_fd(), from, to, c.queues())));
        }
        let mut udp: Vec<(u64, String)> = Vec::new();
        for f in self.udp.flows.iter().flatten() {
            let fd = f.sock.as_raw_fd();
            udp.push((
                f.serial,
                match f.forward {
                    Some(host) => line("UDP[HOST_FORWARD]", fd, host, f.guest, (0, 0)),
                    None => {
                        line(&format!("UDP[{} sec]", f.left(self.now) / 1000), fd, f.guest, f.last, (0, 0))
                    }
                },
            ));
        }
        for list in [&mut tcp, &mut udp] {
            list.sort_by_key(|l| std::cmp::Reverse(l.0));
            out.extend(list.drain(..).map(|l| l.1));
        }
        for (fd, guest, dst, left) in self.ping.list(self.now) {
            let zero = |ip| SocketAddr::new(ip, 0);
            let text = line(&format!("ICMP[{left} sec]"), fd, zero(guest), zero(dst), (0, 0));
            out.push_str(&text);
        }
        out
    }
}
