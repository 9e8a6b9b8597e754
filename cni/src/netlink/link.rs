use super::{CREATE, NetlinkError, Rtnl, accept, exists_is_fine};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How soon to look whether an interface has gone, and then how often.
const RECHECK: Duration = Duration::from_micros(100);

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Index within its namespace.
    pub index: u32,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Link-layer address, six bytes for Ethernet.
    pub mac: Vec<u8>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// A veth pair to be made in one request, its far end inside the pod from the
/// start: moving it there afterwards costs a notification storm and a rename.
#[derive(Debug)]
pub struct VethPair<'a> {
    /// Name of the end that stays.
    pub host: &'a str,
    /// Name of the pod's end.
    pub pod: &'a str,
    /// The pod's namespace.
    pub netns: BorrowedFd<'a>,
    /// Link-layer address of the pod's end.
    pub mac: [u8; 6],
    /// That of the host's end; `None` = any.
    pub host_mac: Option<[u8; 6]>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Index of the bridge that the host's end joins.
    pub bridge: Option<u32>,
}

impl Rtnl {
    /// The index of the interface of this name, if there is one: cheaper than [`Rtnl::link`].
    pub fn index_of(&self, name: &str) -> Result<Option<u32>, NetlinkError> {
        match self.socket.index_of(name) {
            Ok(index) => Ok(Some(index)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(NetlinkError::new("look up link", name, e)),
        }
    }

    /// The interface of this name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<LinkInfo>, NetlinkError> {
        let mut request = LinkMessage::default();
        let by_name = LinkAttribute::IfName(name.to_owned());
        request.attributes.push(by_name);
        self.look_up(request, name)
    }

    fn look_up(
        &self,
        mut request: LinkMessage,
        on: &str,
    ) -> Result<Option<LinkInfo>, NetlinkError> {
        // They are most of the answer, and nobody reads them.
        let lean = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        request.attributes.push(lean);
        match self.socket.ask(Message::GetLink(request), 0) {
            Ok(told) => Ok(links(told).next().map(|m| link_info(&m))),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(NetlinkError::new("look up link", on, e)),
        }
    }

    /// Makes a bridge, down at first; one of that name is left as it is.
    pub fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name)
            .address(mac.to_vec())
            .mtu(mtu)
            .build();
        let done = self.order(Message::NewLink(message), CREATE);
        exists_is_fine(done).map_err(|e| NetlinkError::new("create bridge", name, e))
    }

    /// Makes the pair; both ends are down.
    pub fn add_veth(&self, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
        let done = self.order(Message::NewLink(veth_message(pair)), CREATE);
        done.map_err(|e| NetlinkError::new("create veth", pair.host, e))
    }

    /// Makes a bridge's port that of a pod and sets it up. With `hairpin` frames go back through
    /// the port they came from. It has no IPv6 address of its own: nobody would use it, and all
    /// other pods would hear of it.
    pub fn set_up_port(&self, index: u32, hairpin: bool) -> Result<(), NetlinkError> {
        let port = || LinkBridgePort::new(index).hairpin(hairpin);
        let mute = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let mute = LinkAttribute::AfSpecUnspec(vec![mute]);
        let set = |message| self.order(Message::NewLink(message), 0);
        let done = match set(port().append_extra_attribute(mute).build()) {
            // A kernel without IPv6.
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => set(port().build()),
            done => done,
        };
        done.map_err(|e| NetlinkError::new("set port", index.to_string(), e))?;
        self.set_up(index)
    }

    /// Sets an interface up.
    pub fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let done = self.order(Message::SetLink(message), 0);
        done.map_err(|e| NetlinkError::new("set up link", index.to_string(), e))
    }

    /// Removes an interface (and a veth's other end); none is fine. Returns
    /// when it can't be seen any more.
    ///
    /// The kernel does not let the caller go before every processor has
    /// passed a quiescent state, some 30 ms after the interface has gone; a
    /// thread of its own waits for that.
    pub fn del_link(&self, name: &str) -> Result<(), NetlinkError> {
        let Some(index) = self.index_of(name)? else {
            return Ok(());
        };
        let failed = |e| NetlinkError::new("delete link", name, e);
        if !self.here {
            return self.delete(index).map_err(failed);
        }
        let (sender, deleted) = channel();
        let apart = move || {
            let gone = Rtnl::here().map_err(|e| e.source);
            let _ = sender.send(gone.and_then(|rtnl| rtnl.delete(index)));
        };
        std::thread::Builder::new()
            .name("link-end".to_owned())
            .spawn(apart)
            .map_err(failed)?;
        loop {
            match deleted.recv_timeout(RECHECK) {
                Ok(done) => return done.map_err(failed),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failed(io::ErrorKind::BrokenPipe.into()));
                }
                // The kernel answers this when it has let go of its lock.
                Err(RecvTimeoutError::Timeout) if self.link(name)?.is_none() => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn delete(&self, index: u32) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        accept(self.order(Message::DelLink(request), 0), libc::ENODEV)
    }

    /// Names of a bridge's ports.
    pub fn ports_of(&self, bridge: u32) -> Result<Vec<String>, NetlinkError> {
        let told = self
            .socket
            .ask(Message::GetLink(LinkMessage::default()), NLM_F_DUMP);
        let told = told.map_err(|e| NetlinkError::new("list", "links", e))?;
        let port = LinkAttribute::Controller(bridge);
        let ports = links(told).filter(|m| m.attributes.contains(&port));
        Ok(ports.filter_map(|m| link_name(&m)).collect())
    }

    /// MTU of an interface by its index.
    pub fn mtu_of(&self, index: u32) -> Result<Option<u32>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        Ok(self
            .look_up(request, &index.to_string())?
            .map(|link| link.mtu))
    }
}

fn links(told: Vec<Message>) -> impl Iterator<Item = LinkMessage> {
    told.into_iter().filter_map(|message| match message {
        Message::NewLink(link) => Some(link),
        _ => None,
    })
}

fn veth_message(pair: &VethPair<'_>) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.pod)
        .address(pair.mac.to_vec())
        .mtu(pair.mtu)
        .setns_by_fd(pair.netns.as_raw_fd())
        .build();
    let mut host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(pair.host)
        .mtu(pair.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    if let Some(bridge) = pair.bridge {
        host = host.controller(bridge);
    }
    if let Some(mac) = pair.host_mac {
        host = host.address(mac.to_vec());
    }
    host.build()
}

fn link_name(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn link_info(message: &LinkMessage) -> LinkInfo {
    let mut info = LinkInfo {
        index: message.header.index,
        mtu: 0,
        mac: Vec::new(),
        up: message
            .header
            .flags
            .contains(netlink_packet_route::link::LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::Address(mac) => info.mac.clone_from(mac),
            _ => {}
        }
    }
    info
}
