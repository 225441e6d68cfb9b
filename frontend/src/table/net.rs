//! Network.

use super::Action::{Call, Opts};
use super::{arg, OptDef};
use crate::groups;
use crate::lower::net;

/// "Network options".
pub const OPTIONS: &[OptDef] = &[
    arg(
        "netdev",
        Call(net::netdev),
        "\
-netdev user,id=str[,ipv4=on|off][,net=addr[/mask]][,host=addr]
         [,ipv6=on|off][,ipv6-net=addr[/int]][,ipv6-host=addr]
         [,restrict=on|off][,hostname=host][,dhcpstart=addr]
         [,dns=addr][,ipv6-dns=addr][,dnssearch=domain][,domainname=domain]
         [,tftp=dir][,tftp-server-name=name][,bootfile=f][,hostfwd=rule][,guestfwd=rule][,smb=dir[,smbserver=addr]]
                network in user space with its own DHCP, DNS and TFTP servers
-netdev tap,id=str[,fd=h][,fds=x:y:...:z][,ifname=name][,script=file][,downscript=dfile]
         [,br=bridge][,helper=helper][,sndbuf=nbytes][,vnet_hdr=on|off][,vhost=on|off]
         [,vhostfd=h][,vhostfds=x:y:...:z][,vhostforce=on|off][,queues=n]
         [,poll-us=n]
                TAP interface of the host; script=no runs no script
-netdev bridge,id=str[,br=bridge][,helper=helper]
                TAP interface on a bridge (default br0), made by a helper program
-netdev l2tpv3,id=str,src=srcaddr,dst=dstaddr[,srcport=srcport][,dstport=dstport]
         [,rxsession=rxsession],txsession=txsession[,ipv6=on|off][,udp=on|off]
         [,cookie64=on|off][,counter][,pincounter][,txcookie=txcookie]
         [,rxcookie=rxcookie][,offset=offset]
                Ethernet over L2TPv3 (RFC 3931)
-netdev socket,id=str[,fd=h][,listen=[host]:port][,connect=host:port]
-netdev socket,id=str[,fd=h][,mcast=maddr:port[,localaddr=addr]]
-netdev socket,id=str[,fd=h][,udp=host:port][,localaddr=host:port]
                another emulator's network by TCP, multicast or UDP
-netdev stream,id=str[,server=on|off],addr.type=inet,addr.host=host,addr.port=port[,to=maxport][,numeric=on|off][,keep-alive=on|off][,mptcp=on|off][,addr.ipv4=on|off][,addr.ipv6=on|off]
-netdev stream,id=str[,server=on|off],addr.type=unix,addr.path=path[,abstract=on|off][,tight=on|off]
-netdev stream,id=str[,server=on|off],addr.type=fd,addr.str=file-descriptor
                the same over a stream socket
-netdev dgram,id=str,remote.type=inet,remote.host=maddr,remote.port=port[,local.type=inet,local.host=addr]
-netdev dgram,id=str,remote.type=inet,remote.host=maddr,remote.port=port[,local.type=fd,local.str=file-descriptor]
-netdev dgram,id=str,local.type=inet,local.host=addr,local.port=port[,remote.type=inet,remote.host=addr,remote.port=port]
-netdev dgram,id=str,local.type=unix,local.path=path[,remote.type=unix,remote.path=path]
-netdev dgram,id=str,local.type=fd,local.str=file-descriptor
                the same over datagrams
-netdev vde,id=str[,sock=socketpath][,port=n][,group=groupname][,mode=octalmode]
                a VDE switch
-netdev vhost-user,id=str,chardev=dev[,vhostforce=on|off]
                a vhost-user process behind a chardev
-netdev vhost-vdpa,id=str[,vhostdev=/path/to/dev][,vhostfd=h]
                a vDPA device of the host
-netdev hubport,id=str,hubid=n[,netdev=nd]
                a port of hub n",
    ),
    arg(
        "nic",
        Opts(&groups::NIC),
        "\
-nic [tap|bridge|user|l2tpv3|vde|vhost-user|socket][,option][,...][mac=macaddr]
                a NIC and its backend in one ('model=help' lists NICs)
-nic none       no NIC at all (otherwise there is one on a 'user' network)",
    ),
    arg(
        "net",
        Opts(&groups::NET),
        "\
-net nic[,macaddr=mac][,model=type][,name=str][,addr=str][,vectors=v]
                a NIC on hub 0
-net [user|tap|bridge|vde|socket][,option][,option][,...]
                a backend on hub 0",
    ),
];
