//! What agent, monitor and stage say to each other, damaged: whoever reads it
//! reads the same in it again, or nothing.

use prost::Message;

use super::answer;
use super::plan::{Mount, Plan, Process};
use super::wire::{Body, Create, Exec, Failed, Frame, IdMap, Known, Spawn, State};
use fuzz::Fuzz;

fn frame(body: Body) -> Vec<u8> {
    Frame {
        seq: 7,
        body: Some(body),
    }
    .encode_to_vec()
}

fn plan() -> Vec<u8> {
    let process = Process {
        args: vec!["/bin/true".into()],
        groups: vec![0, 4, 5],
        seccomp: vec![6; 16],
        ..Process::default()
    };
    let mount = Mount {
        destination: "/proc".into(),
        source: 1,
        ..Mount::default()
    };
    Plan {
        process: Some(process),
        rootfs: Some(3),
        mounts: vec![mount],
        ..Plan::default()
    }
    .encode_to_vec()
}

fn frames() -> Vec<Vec<u8>> {
    let container = || "c".to_owned();
    let known = Known {
        container: container(),
        pid: 12,
        started: true,
        ..Known::default()
    };
    let run = IdMap {
        host: 65_536,
        length: 65_536,
        ..IdMap::default()
    };
    [
        Body::Create(Create {
            container: container(),
            plan: plan(),
            cgroup: Some(2),
            ..Create::default()
        }),
        Body::Exec(Exec {
            container: container(),
            plan: plan(),
            ..Exec::default()
        }),
        Body::Spawn(Spawn {
            id: "s".into(),
            uids: vec![run.clone()],
            gids: vec![run],
            ..Spawn::default()
        }),
        Body::State(State {
            containers: vec![known],
            userns: true,
            ..State::default()
        }),
        Body::Failed(Failed {
            errno: 12,
            step: 3,
            context: "/x".into(),
            ..Failed::default()
        }),
    ]
    .map(frame)
    .to_vec()
}

const WORDS: [&str; 8] = [
    "\0", "\u{1}", "\u{7f}", "\u{12}", "\n\u{1}c", "\u{8}", "..", "/",
];

#[test]
fn damaged_frame_is_read_as_what_it_says_or_not_at_all() {
    Fuzz::new("monitor protocol", frames())
        .words(&WORDS)
        .bytes(|bytes| {
            let Ok(frame) = Frame::decode(bytes) else {
                return;
            };
            let again = Frame::decode(frame.encode_to_vec().as_slice());
            assert_eq!(again.as_ref(), Ok(&frame));
            tell(frame.body);
        });
}

/// Whatever a monitor answers becomes a sentence.
fn tell(body: Option<Body>) {
    match body {
        Some(Body::Failed(failed)) => {
            for container in ["", "c"] {
                let error = answer::failed("s", container, failed.clone());
                assert!(!error.to_string().is_empty());
            }
        }
        Some(body) => {
            let fds = Vec::new();
            let answer = super::link::Answer { body, fds };
            // None came without its descriptors.
            assert!(answer::state("s", Ok(answer)).is_err());
        }
        None => {}
    }
}

#[test]
fn damaged_plan_is_read_as_what_it_says_or_not_at_all() {
    Fuzz::new("stage plan", [plan()])
        .words(&WORDS)
        .bytes(|bytes| {
            if let Ok(plan) = Plan::decode(bytes) {
                let again = Plan::decode(plan.encode_to_vec().as_slice());
                assert_eq!(again, Ok(plan));
            }
        });
}
