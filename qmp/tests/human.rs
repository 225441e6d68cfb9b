//! The human monitor: ours and, where it is installed, QEMU's, byte for byte.

mod common;

use common::{Client, Kind, Server};
use std::io::{Read, Write};
use std::net::Shutdown;

const BANNER: &str = "QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ";
/// A line that nothing else prints, and what it gives.
const MARK: &[u8] = b"\nzzz\n";
const END: &str = "unknown command: 'zzz'\r\n(qemu) ";

fn talk(server: &Server, keys: &[u8]) -> String {
    let mut client = Client::new(server.connect());
    assert_eq!(client.until("(qemu) "), BANNER);
    client.send(keys);
    client.send(MARK);
    client.until(END)
}

/// Compares what both monitors write; one server each, so that the history goes on from case to case.
fn compare(cases: &[&[u8]]) {
    let (ours, qemu) = (Server::ours(Kind::Hmp), Server::qemu(Kind::Hmp));
    for keys in cases {
        let got = talk(&ours, keys);
        if let Some(qemu) = &qemu {
            // Line by line, for a readable difference.
            let want = talk(qemu, keys);
            for (got, want) in got.split('\n').zip(want.split('\n')) {
                assert_eq!(got, want, "{:?}", String::from_utf8_lossy(keys));
            }
            assert_eq!(got, want, "{:?}", String::from_utf8_lossy(keys));
        }
    }
}

#[test]
fn line_editing() {
    compare(&[
        b"info status\n",
        b"info status\r\n",
        b"stap\x7f\x08op\n",
        b"nfo name\x01i\n",
        b"nfo nam\x01i\x05e\n",
        b"abc\x02\x02\x02x\x06y\x04\n",
        b"abc def\x17\n",
        b"abc def  \x17\x17\x17x\n",
        b"abc\x0c\n",
        b"abc\x1b[D\x1b[D\x1b[Cx\x1b[1~y\x1b[4~z\x1b[3~\x1b[1~\x1b[3~\n",
        b"abc\x1bOH1\x1bOF2\x1bx\x1b[5~d\x9bD\x9b4~e\n",
        b"\n \n",
        b"abc\x03\x1a\x16\n",
        b"\x04\x7f\x08\x17\x1b[D\x1b[C\n",
    ]);
}

#[test]
fn history() {
    compare(&[
        b"one\ntwo\nthree\n\x1b[A\x1b[A\n",
        b"\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\x1b[A\n",
        b"\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B\x1b[Bx\n",
        b"two\n\x1b[A\x1b[A\x1b[A\n",
        b"\x1b[A\x1b[A!\n\x1b[A\x1b[A\x1b[E\x1b[F\n",
    ]);
}

#[test]
fn errors_in_arguments() {
    compare(&[
        b"foo bar\ninfo foo\ninfoo\nstop x\nstop 1\n  info   status\ninfo status x\n",
        b"sendkey\nsendkey foo\nsendkey ctrl-foo\nsendkey a b\nsendkey a 1x\nsendkey a-\nsendkey 0x\n",
        b"print 1+2\np/x 0x10*2\np/d (3+4)*2\np 1/0\np 5%3\np ~1\np 'a'\np \"a\"\np 1 2\np\n",
        b"p/c 65\np/o 8\nprint/x -1\np 2+3*4\np 1|2+4\np 6&3*1\np -1/2\np (1\np 010\np 0x\np 1+\np $\np/u -1\np/d -1\n",
        b"p/c 10\np/c 39\np/c 92\np/c 200\np/zz 1\np/10x 1\n",
        b"cpu x\ncpu 5\ncpu 0x1ffffffff\ndevice_del\ndevice_del x\neject\neject -x foo\neject foo\n",
        b"screendump\nclosefd x\ngetfd x\nchardev-remove zz\nqom-list\nqom-list /zz\nqom-get / type\nqom-get / zz\n",
        b"xp/2xb 0\nxp/2xh 0\nxp/3d 0\nxp/20c 0\nxp/3ub 0\nxp/2og 0\nxp 0\nxp/0x 0\nxp/zz 0\n",
        b"help foo\nhelp info foo\ninfo kvm\ninfo uuid\ninfo name\ninfo history\n",
        b"watchdog_action foo\nsystem_wakeup\nblock_resize foo 1\nblock_resize foo x\nblock_resize foo 1.5M\nblock_resize foo\n",
        b"commit foo\ncommit all\nmouse_move 1 2\nmouse_button 0\nstop\n",
    ]);
}

#[test]
fn back_ends_and_facts_about_the_host() {
    compare(&[
        b"info numa\ninfo irq\ninfo mem\ninfo tlb\ninfo balloon\ninfo iothreads\ninfo dump\n", b"info memdev\n",
        b"info sev\ninfo sgx\ninfo replay\ninfo rdma\ninfo usb\ninfo profile\ninfo vm-generation-id\n",
        b"info block-jobs\ninfo migrate_capabilities\ninfo hotpluggable-cpus\ninfo tpm\ninfo memory-devices\n",
        b"object_add\nobject_add iothread\nobject_add id=x\nobject_add nope,id=x\nobject_add iothread,id=i2,nope=1\n",
        b"object_add iothread,id=i2,poll-max-ns=x\nobject_add iothread,id=i1,poll-max-ns=7\nqom-list /objects\n",
        b"qom-get /objects/i1 poll-max-ns\nqom-set /objects/i1 poll-max-ns -1\nobject_del i1\nobject_del i1\n",
        b"ringbuf_write x y\nringbuf_read x 1\nringbuf_read x\nboot_set c\nboot_set\nballoon 64\nballoon\nnmi\n",
        b"replay_break 1\nreplay_seek 1\nreplay_delete_break\nexit_preconfig\ndumpdtb x\ninfo stats\ninfo stats nope\n",
        b"gpa2hva 0\ngpa2hpa 0\ngva2gpa 0\nloadvm\nsavevm\ndump-guest-memory\ndump-guest-memory -z -l x\n",
        b"migrate_set_capability nope on\nmigrate_set_capability events maybe\nmigrate_set_capability events\n",
    ]);
}

#[test]
fn completion_inserts_and_lists() {
    let ours = Server::ours(Kind::Hmp);
    let typed = |keys: &[u8]| {
        let out = talk(&ours, keys);
        out[..out.len() - END.len()].to_string()
    };
    assert!(typed(b"scr\t").contains("screendump \x1b[K"));
    assert!(typed(b"info na\t").contains("info name \x1b[K"));
    assert!(typed(b"i\t").contains("i\x1b[K\r\ni         info      \r\n(qemu) i\x1b[K"));
    assert!(
        typed(b"info bl\t").contains("\r\nblock       block-jobs  blockstats  \r\n(qemu) info block\x1b[K")
    );
    assert!(typed(b"help st\t").contains("help stop \x1b[K"));
    assert!(typed(b"xyz\t").ends_with(
        "xyz\x1b[K\r\nunknown command: 'xyz'\r\n(qemu) z\x1b[K\x1b[Dzz\x1b[K\x1b[D\x1b[Dzzz\x1b[K\r\n"
    ));
    compare(&[b"sendkey ctrl-alt-d\t", b"inf\tname", b"qui\t\x01\x04\x04\x04\x04\x04", b"scre\tx"]);
}

#[test]
fn a_client_that_ends_its_side_is_served() {
    let server = Server::ours(Kind::Hmp);
    for (line, done) in [("info status\n", true), ("info status", false)] {
        let mut stream = server.connect();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).unwrap();
        assert_eq!(out.contains("VM status: paused (prelaunch)"), done, "{out:?}");
    }
}

#[test]
fn help_names_every_command() {
    let server = Server::ours(Kind::Qmp);
    let mut client = server.client();
    let lines = client.talk(b"{'execute': 'human-monitor-command', 'arguments': {'command-line': 'help'}}");
    for name in ["cont|c  -- ", "quit|q  -- ", "info [subcommand] -- ", "x /fmt addr -- "] {
        assert!(lines[0].contains(name), "{name}");
    }
}
