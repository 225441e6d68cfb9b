//! Disks and file systems.

use super::Action::{Call, Opts};
use super::{arg, flag, OptDef};
use crate::groups;
use crate::lower::block;

/// "Block device options".
pub const OPTIONS: &[OptDef] = &[
    arg("fda", Call(block::fda), "-fda/-fdb file  floppy disk image for drive 0/1"),
    arg("fdb", Call(block::fdb), ""),
    arg("hda", Call(block::hda), "-hda/-hdb file  hard disk image at IDE index 0/1"),
    arg("hdb", Call(block::hdb), ""),
    arg("hdc", Call(block::hdc), "-hdc/-hdd file  hard disk image at IDE index 2/3"),
    arg("hdd", Call(block::hdd), ""),
    arg("cdrom", Call(block::cdrom), "-cdrom file     CD-ROM image (IDE index 2)"),
    arg(
        "blockdev",
        Call(block::blockdev),
        "\
-blockdev [driver=]driver[,node-name=N][,discard=ignore|unmap]
          [,cache.direct=on|off][,cache.no-flush=on|off]
          [,read-only=on|off][,auto-read-only=on|off]
          [,force-share=on|off][,detect-zeroes=on|off|unmap]
          [,driver specific parameters...]
                add a node to the block graph",
    ),
    arg(
        "drive",
        Opts(&groups::DRIVE),
        "\
-drive [file=file][,if=type][,bus=n][,unit=m][,media=d][,index=i]
       [,cache=writethrough|writeback|none|directsync|unsafe][,format=f]
       [,snapshot=on|off][,rerror=ignore|stop|report]
       [,werror=ignore|stop|report|enospc][,id=name]
       [,aio=threads|native|io_uring]
       [,readonly=on|off][,copy-on-read=on|off]
       [,discard=ignore|unmap][,detect-zeroes=on|off|unmap]
       [[,bps=b]|[[,bps_rd=r][,bps_wr=w]]]
       [[,iops=i]|[[,iops_rd=r][,iops_wr=w]]]
       [[,bps_max=bm]|[[,bps_rd_max=rm][,bps_wr_max=wm]]]
       [[,iops_max=im]|[[,iops_rd_max=irm][,iops_wr_max=iwm]]]
       [[,iops_size=is]]
       [[,group=g]]
                a drive with an image, and the bus it is on",
    ),
    arg("mtdblock", Call(block::mtdblock), "-mtdblock file  image for on-board flash memory"),
    arg("sd", Call(block::sd), "-sd file        SD card image"),
    flag("snapshot", Call(block::snapshot), "-snapshot       keep all writes in temporary files"),
    arg(
        "fsdev",
        Opts(&groups::FSDEV),
        "\
-fsdev local,id=id,path=path,security_model=mapped-xattr|mapped-file|passthrough|none
 [,writeout=immediate][,readonly=on][,fmode=fmode][,dmode=dmode]
 [[,throttling.bps-total=b]|[[,throttling.bps-read=r][,throttling.bps-write=w]]]
 [[,throttling.iops-total=i]|[[,throttling.iops-read=r][,throttling.iops-write=w]]]
 [[,throttling.bps-total-max=bm]|[[,throttling.bps-read-max=rm][,throttling.bps-write-max=wm]]]
 [[,throttling.iops-total-max=im]|[[,throttling.iops-read-max=irm][,throttling.iops-write-max=iwm]]]
 [[,throttling.iops-size=is]]
-fsdev proxy,id=id,socket=socket[,writeout=immediate][,readonly=on]
-fsdev proxy,id=id,sock_fd=sock_fd[,writeout=immediate][,readonly=on]
-fsdev synth,id=id",
    ),
    arg(
        "virtfs",
        Opts(&groups::VIRTFS),
        "\
-virtfs local,path=path,mount_tag=tag,security_model=mapped-xattr|mapped-file|passthrough|none
        [,id=id][,writeout=immediate][,readonly=on][,fmode=fmode][,dmode=dmode][,multidevs=remap|forbid|warn]
-virtfs proxy,mount_tag=tag,socket=socket[,id=id][,writeout=immediate][,readonly=on]
-virtfs proxy,mount_tag=tag,sock_fd=sock_fd[,id=id][,writeout=immediate][,readonly=on]
-virtfs synth,mount_tag=tag[,id=id][,readonly=on]",
    ),
    arg(
        "iscsi",
        Opts(&groups::ISCSI),
        "\
-iscsi [user=user][,password=password]
       [,header-digest=CRC32C|CR32C-NONE|NONE-CRC32C|NONE
       [,initiator-name=initiator-iqn][,id=target-iqn]
       [,timeout=timeout]",
    ),
];
