use super::{NetlinkError, Rtnl, accept, exists_is_fine, io_error};
use futures::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How often to look whether an interface has gone.
const RECHECK: Duration = Duration::from_millis(1);

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
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Index of the bridge that the host's end joins.
    pub bridge: Option<u32>,
}

impl Rtnl {
    /// The interface of this name, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<LinkInfo>, NetlinkError> {
        let request = self.handle.link().get().match_name(name);
        let found = request.execute().try_next().await.map_err(io_error);
        match found {
            Ok(message) => Ok(message.map(|m| link_info(&m))),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(NetlinkError::new("look up link", name, e)),
        }
    }

    /// Makes a bridge, down at first; one of that name is left as it is.
    pub async fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name)
            .address(mac.to_vec())
            .mtu(mtu)
            .build();
        let done = self.handle.link().add(message).execute().await;
        exists_is_fine(done).map_err(|e| NetlinkError::new("create bridge", name, e))
    }

    /// Makes the pair; the host's end is up, the pod's is not.
    pub async fn add_veth(&self, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
        let message = veth_message(pair);
        let done = self.handle.link().add(message).execute().await;
        done.map_err(|e| NetlinkError::new("create veth", pair.host, io_error(e)))
    }

    /// Lets the bridge send frames back through the port they came from.
    pub async fn set_hairpin(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkBridgePort::new(index).hairpin(true).build();
        let done = self.handle.link().set_port(message).execute().await;
        done.map_err(|e| NetlinkError::new("set hairpin on link", index.to_string(), io_error(e)))
    }

    /// Sets an interface up.
    pub async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let done = self.handle.link().set(message).execute().await;
        done.map_err(|e| NetlinkError::new("set up link", index.to_string(), io_error(e)))
    }

    /// Removes an interface (and a veth's other end); none is fine. Returns
    /// when it can't be seen any more.
    ///
    /// The kernel does not let the caller go before every processor has
    /// passed a quiescent state, some 30 ms after the interface has gone; a
    /// thread of its own waits for that, not one of the executor's.
    pub async fn del_link(&self, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = self.link(name).await? else {
            return Ok(());
        };
        if !self.here {
            let done = self.handle.link().del(link.index).execute().await;
            let done = accept(done, libc::ENODEV);
            return done.map_err(|e| NetlinkError::new("delete link", name, e));
        }
        let mut deleted = tokio::task::spawn_blocking(move || delete_apart(link.index));
        loop {
            match tokio::time::timeout(RECHECK, &mut deleted).await {
                Ok(Ok(done)) => return done.map_err(|e| NetlinkError::new("delete link", name, e)),
                // The executor ends.
                Ok(Err(_)) => return Ok(()),
                Err(_) if self.link(name).await?.is_none() => return Ok(()),
                Err(_) => {}
            }
        }
    }

    /// Names of a bridge's ports.
    pub async fn ports_of(&self, bridge: u32) -> Result<Vec<String>, NetlinkError> {
        let listed = self.handle.link().get().execute();
        let messages: Vec<_> = listed
            .try_collect()
            .await
            .map_err(|e| NetlinkError::new("list", "links", io_error(e)))?;
        let port = LinkAttribute::Controller(bridge);
        let ports = messages.iter().filter(|m| m.attributes.contains(&port));
        Ok(ports.filter_map(link_name).collect())
    }

    /// MTU of an interface by its index.
    pub async fn mtu_of(&self, index: u32) -> Result<Option<u32>, NetlinkError> {
        let request = self.handle.link().get().match_index(index);
        let found = request.execute().try_next().await;
        let found =
            found.map_err(|e| NetlinkError::new("look up link", index.to_string(), io_error(e)))?;
        Ok(found.map(|m| link_info(&m).mtu))
    }
}

/// Deletes by way of a connection that this thread alone drives.
fn delete_apart(index: u32) -> io::Result<()> {
    tokio::runtime::Handle::current().block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let deleted = handle.link().del(index);
        tokio::select! {
            biased;
            done = deleted.execute() => accept(done, libc::ENODEV),
            () = connection => Err(io::ErrorKind::BrokenPipe.into()),
        }
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
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    if let Some(bridge) = pair.bridge {
        host = host.controller(bridge);
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
