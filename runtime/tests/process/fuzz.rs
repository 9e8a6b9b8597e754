//! The monitor's socket, fed with damaged requests.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ::fuzz::Fuzz;
use prost::Message;
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::bed::{Bed, Container};

/// Requests by the number of their field in a frame, about a container named c.
fn requests() -> Vec<Vec<u8>> {
    let named = || field(1, b"c");
    let plan = field(1, &field(1, b"/bin/true"));
    let bodies: [(u32, Vec<u8>); 10] = [
        (3, [named(), field(2, &plan)].concat()),
        (4, named()),
        (5, [named(), vec![16, 0]].concat()),
        (6, [named(), field(2, b"e"), field(3, &plan)].concat()),
        (7, [named(), vec![16, 1]].concat()),
        (8, [named(), vec![16, 80, 24, 24]].concat()),
        (9, named()),
        (10, named()),
        (11, vec![8, 2, 16, 1, 24, 6]),
        // Renewal, with what is no program.
        (15, vec![]),
    ];
    bodies
        .iter()
        .map(|(number, body)| [vec![8, 9], field(*number, body)].concat())
        .collect()
}

/// A field that has a length, of less than 128 bytes.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![(number << 3 | 2) as u8, bytes.len() as u8];
    field.extend(bytes);
    field
}

/// What ends a monitor, rightly.
#[derive(Clone, PartialEq, Message)]
struct Shutdown {
    #[prost(bytes = "vec", optional, tag = "12")]
    asked: Option<Vec<u8>>,
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    let data = [IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL).expect("send");
}

/// Says that a stage goes on as this process.
pub fn send_done(channel: &OwnedFd, pid: u32, pidfd: &OwnedFd) {
    #[derive(Clone, PartialEq, Message)]
    struct Done {
        #[prost(uint32, tag = "1")]
        pid: u32,
    }
    let mut frame = vec![0x92, 2];
    frame.extend(Done { pid }.encode_length_delimited_to_vec());
    send(channel, &frame, &[pidfd.as_fd()]);
}

struct Agent(OwnedFd);

impl Agent {
    fn connect(dir: &Path) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, flags, None).expect("socket");
        let address = SocketAddrUnix::new(dir.join("m.sock")).expect("address");
        rustix::net::connect(&socket, &address).expect("connect");
        Self(socket)
    }

    fn send(&self, bytes: &[u8], fds: usize) {
        let null = std::fs::File::open("/dev/null").expect("null");
        send(&self.0, bytes, &vec![null.as_fd(); fds]);
    }

    /// Asks for the monitor's state and reads all answers up to it.
    fn state(&self) {
        const SEQ: u64 = 4242;
        self.send(&[vec![8, 0x92, 0x21], field(2, &[8, 1])].concat(), 0);
        let mut buffer = vec![0u8; 1 << 16];
        loop {
            let moment = rustix::time::Timespec {
                tv_sec: 10,
                tv_nsec: 0,
            };
            let mut ready = [rustix::event::PollFd::new(
                &self.0,
                rustix::event::PollFlags::IN,
            )];
            let answers = rustix::event::poll(&mut ready, Some(&moment)).expect("poll");
            assert_eq!(answers, 1, "the monitor does not answer");
            let (_, size) = rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty())
                .expect("the monitor lives");
            assert!(size > 0, "the monitor closed the connection");
            if sequence(&buffer[..size]) == Some(SEQ) {
                return;
            }
        }
    }
}

fn sequence(frame: &[u8]) -> Option<u64> {
    #[derive(Clone, PartialEq, Message)]
    struct Numbered {
        #[prost(uint64, tag = "1")]
        seq: u64,
    }
    Numbered::decode(frame).ok().map(|frame| frame.seq)
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn monitor_and_its_container_live_on_whatever_comes_over_the_socket() {
    let mut bed = Bed::new("fuzz").await;
    let sandbox = bed.sandbox("s1").await;
    let script = "trap 'exit 5' TERM; while :; do sleep 0.01; done";
    let pid = bed.run(&sandbox, "kept", Container::sh(script)).await;
    let monitor = sandbox.monitor_pid();
    let dir = bed.dir.join("state/sandboxes/s1");
    drop(sandbox);
    let agent = Agent::connect(&dir);
    let mut sent = 0usize;
    Fuzz::new("live monitor", requests())
        .words(&["\u{1}", "\0", "\n\u{1}c", "..", "/", "\u{7f}"])
        .bytes(|bytes| {
            let ends = Shutdown::decode(bytes).is_ok_and(|frame| frame.asked.is_some());
            // Nothing is the end of a connection, one zero descriptors sent ahead.
            if ends || bytes.is_empty() || bytes == [0] {
                return;
            }
            agent.send(bytes, sent % 5);
            sent += 1;
            if sent.is_multiple_of(20) {
                agent.state();
            }
        });
    assert!(sent > 1000, "{sent}");
    agent.state();
    bed.open().await;
    let sandbox = bed.engine().adopt("s1").await.expect("adopt");
    assert_eq!(sandbox.monitor_pid(), monitor);
    assert_eq!(sandbox.container_pid("kept"), Some(pid));
    sandbox.signal("kept", 15).await.expect("signal");
    let ended = async {
        loop {
            let event = bed.event().await;
            if let runtime::process::Event::ContainerExited {
                container, exit, ..
            } = event
                && container == "kept"
            {
                return exit.code;
            }
        }
    };
    assert_eq!(ended.await, 5);
    sandbox.shutdown().await.expect("shutdown");
}
