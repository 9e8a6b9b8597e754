//! `lighter exec`: a command in a container, with the streams of whoever typed it.

mod client;
mod frame;
mod terminal;

use crate::cli::ExecArgs;
use anyhow::{Context, anyhow, bail};
use client::{Client, Event, MESSAGE_MAX};
use cri_proto::v1::{ExecRequest, ExecSyncRequest};
use frame::Channel;
use std::io::{self, Read, Write};
use terminal::Terminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Runs a command to its end; its exit code is ours.
pub async fn run(args: ExecArgs) -> anyhow::Result<u8> {
    if args.stdin || args.tty {
        return stream(args).await;
    }
    let cri = cri_proto::connect(&args.socket.socket).await?;
    let request = ExecSyncRequest {
        container_id: args.container,
        cmd: args.command,
        timeout: args.timeout,
    };
    let done = cri.exec_sync(request).await;
    let done = done.map_err(|s| anyhow!("{}", s.message()))?;
    io::stdout().write_all(&done.stdout)?;
    io::stderr().write_all(&done.stderr)?;
    Ok(u8::try_from(done.exit_code).unwrap_or(u8::MAX))
}

async fn stream(args: ExecArgs) -> anyhow::Result<u8> {
    if args.timeout != 0 {
        bail!("--timeout goes with neither --stdin nor --tty: whoever types can stop");
    }
    let cri = cri_proto::connect(&args.socket.socket).await?;
    let request = ExecRequest {
        container_id: args.container,
        cmd: args.command,
        tty: args.tty,
        stdin: args.stdin,
        stdout: true,
        stderr: !args.tty,
    };
    let answer = cri.exec(request).await;
    let url = answer.map_err(|s| anyhow!("{}", s.message()))?.url;
    let mut client = Client::connect(&url).await?;
    let terminal = args.tty.then(Terminal::raw).transpose()?.flatten();
    let code = copy(&mut client, args.stdin, terminal.as_ref()).await;
    // Before anything is said: a raw terminal shows lines as stairs.
    drop(terminal);
    code
}

/// Until the command has ended.
async fn copy(client: &mut Client, stdin: bool, terminal: Option<&Terminal>) -> anyhow::Result<u8> {
    let mut typed = typed(stdin);
    let mut resized = signal(SignalKind::window_change())?;
    if let Some(size) = terminal.and_then(Terminal::size) {
        client.send(Channel::Resize, size.as_bytes()).await?;
    }
    loop {
        tokio::select! {
            event = client.receive() => match event? {
                Event::Data(Channel::Stdout, bytes) => show(&mut io::stdout(), &bytes)?,
                Event::Data(Channel::Stderr, bytes) => show(&mut io::stderr(), &bytes)?,
                Event::Data(Channel::Error, bytes) => return frame::exit_code(&bytes),
                Event::Data(..) => {}
                Event::Ping(bytes) => client.pong(&bytes).await?,
                Event::Closed => bail!("the runtime closed the connection and gave no exit code"),
            },
            Some(bytes) = typed.recv() => {
                if bytes.is_empty() {
                    client.close(Channel::Stdin).await?;
                } else {
                    client.send(Channel::Stdin, &bytes).await?;
                }
            }
            _ = resized.recv() => {
                if let Some(size) = terminal.and_then(Terminal::size) {
                    client.send(Channel::Resize, size.as_bytes()).await?;
                }
            }
        }
    }
}

fn show(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// What is typed, an empty piece for its end. The thread that reads is left behind at the end:
/// nothing wakes a read of a terminal.
fn typed(wanted: bool) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(4);
    if wanted {
        std::thread::spawn(move || {
            let mut buffer = [0; MESSAGE_MAX];
            loop {
                let count = io::stdin().read(&mut buffer).unwrap_or(0);
                if send.blocking_send(buffer[..count].to_vec()).is_err() || count == 0 {
                    return;
                }
            }
        });
    }
    receive
}

/// `http://host:port/path` in its parts.
fn parts(url: &str) -> anyhow::Result<(&str, &str)> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("the runtime streams at {url}: only http is spoken here"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    Ok(rest.split_at(slash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_parted_and_must_be_http() {
        let (host, path) = parts("http://127.0.0.1:80/exec/x").unwrap();
        assert_eq!((host, path), ("127.0.0.1:80", "/exec/x"));
        assert!(parts("https://127.0.0.1/exec/x").is_err());
    }
}
