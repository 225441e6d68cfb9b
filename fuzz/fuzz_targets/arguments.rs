//! Command lines: one word a line. Parsing must end in a specification, a text or an error, and touch nothing.
#![cfg_attr(fuzzing, no_main)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn check(data: &[u8]) {
    let lines = data.split(|b| *b == b'\n').filter(|l| !l.contains(&0));
    let mut argv: Vec<OsString> = vec!["qemu".into()];
    argv.extend(lines.take(64).map(|l| OsString::from_vec(l.to_vec())));
    // It would read files by any name.
    if argv.iter().any(|w| w.to_string_lossy().ends_with("readconfig")) {
        return;
    }
    drop(rqemu_frontend::parse(&argv));
    if let Ok(text) = std::str::from_utf8(data) {
        drop(rqemu_frontend::keyval::parse(text, Some("driver")));
        drop(rqemu_frontend::json::parse_object(text));
    }
}

rqemu_fuzz::target!(
    [
        "-drive\nfile=a,,b.img,if=virtio,cache.direct=on,format=qcow2,file.locking=off\n-m\n1.5G,slots=2,maxmem=4G",
        "-blockdev\n{\"driver\":\"qcow2\",\"node-name\":\"d\",\"file\":{\"driver\":\"file\",\"filename\":\"x\"}}",
        "-netdev\nuser,id=n,hostfwd=tcp:127.0.0.1:22-:22,hostfwd=udp::1-:2\n-device\ne1000,netdev=n,mac=52:54:00:12:34:56",
        "-smp\n4,sockets=2,cores=2,threads=1,maxcpus=8\n-numa\nnode,nodeid=0,cpus=0-1,memdev=m\n-cpu\nhost,+x,-y,z=on",
        "-chardev\nsocket,id=c,path=/tmp/x,server=on,wait=off\n-mon\nchardev=c,mode=control,pretty=on\n-serial\nmon:stdio",
        "-machine\npc,accel=kvm:tcg,kernel-irqchip=split\n-object\nmemory-backend-file,id=m,size=1G,mem-path=/x,share=on",
        "-device\n{\"driver\":\"virtio-blk-pci\",\"drive\":\"d\",\"id\":\"x\",\"addr\":\"0x3.1\"}\n-global\na.b=c\n-boot\norder=cd,menu=on",
        "-fw_cfg\nname=opt/a,string=b,,c\n-smbios\ntype=1,uuid=12345678-1234-1234-1234-123456789abc\n-rtc\nbase=2020-01-01T00:00:00",
        "a.b.0.c=1,a.b.1.c=2,d=e,,f,g.h=on",
    ]
    .map(|s| s.as_bytes().to_vec())
    .to_vec(),
    check
);
