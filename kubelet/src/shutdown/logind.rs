//! systemd-logind over D-Bus: org.freedesktop.login1(5), inhibitor locks.

use futures::{Stream, StreamExt};
use std::path::PathBuf;
use std::time::Duration;
use zbus::message::Type;
use zbus::zvariant::OwnedFd;
use zbus::{Connection, MatchRule, MessageStream, Proxy};

const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SYSTEMD: [&str; 3] = [
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
];
/// kubernetes v1.37 pkg/kubelet/nodeshutdown/systemd/inhibit_linux.go.
const DROP_IN: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";
/// logind reads its files some time after it was told to.
const PATIENCE: [u64; 6] = [100, 200, 400, 800, 1600, 1600];
const SIGHUP: i32 = 1;

/// Why logind can't be asked for time.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LogindError {
    #[error("no system bus; is dbus running?")]
    NoBus(#[source] Box<zbus::Error>),
    #[error("{what}; is systemd-logind running? try: systemctl status systemd-logind")]
    Call {
        what: &'static str,
        source: Box<zbus::Error>,
    },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "logind grants {}s, and {}s are asked for; another file in /etc/systemd/logind.conf.d \
         may set InhibitDelayMaxSec", granted.as_secs(), wanted.as_secs()
    )]
    NotGranted { granted: Duration, wanted: Duration },
    #[error("the connection to the system bus was closed")]
    Closed,
}

/// A connection to it.
pub struct Logind {
    connection: Connection,
    manager: Proxy<'static>,
}

/// Holds a shutdown up until it is dropped, or until logind's patience ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] OwnedFd);

impl Logind {
    /// Over the system bus.
    pub async fn connect() -> Result<Logind, LogindError> {
        let connection = Connection::system()
            .await
            .map_err(|e| LogindError::NoBus(Box::new(e)))?;
        let manager = Proxy::new(&connection, NAME, PATH, MANAGER).await;
        Ok(Logind {
            manager: manager.map_err(|source| call("speak to logind", source))?,
            connection,
        })
    }

    /// Has logind wait for so long, by a file of ours where it waits less.
    pub async fn allow(&self, wanted: Duration) -> Result<(), LogindError> {
        if self.delay().await? >= wanted {
            return Ok(());
        }
        write_drop_in(wanted)?;
        self.reload().await?;
        let mut granted = Duration::ZERO;
        for wait in PATIENCE {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            granted = self.delay().await?;
            if granted >= wanted {
                return Ok(());
            }
        }
        Err(LogindError::NotGranted { granted, wanted })
    }

    /// Straight from logind: it tells nobody when this changes.
    async fn delay(&self) -> Result<Duration, LogindError> {
        let micros: u64 = self.property("InhibitDelayMaxUSec").await?;
        Ok(Duration::from_micros(micros))
    }

    /// Whether a shutdown has begun already.
    pub async fn is_going_down(&self) -> Result<bool, LogindError> {
        self.property("PreparingForShutdown").await
    }

    async fn property<T>(&self, name: &'static str) -> Result<T, LogindError>
    where
        T: TryFrom<zbus::zvariant::OwnedValue, Error: Into<zbus::zvariant::Error>>,
    {
        let interface = "org.freedesktop.DBus.Properties";
        let value = async {
            let message = self
                .connection
                .call_method(Some(NAME), PATH, Some(interface), "Get", &(MANAGER, name))
                .await?;
            let value: zbus::zvariant::OwnedValue = message.body().deserialize()?;
            T::try_from(value).map_err(|e| zbus::Error::Variant(e.into()))
        };
        value.await.map_err(|source| call(name, source))
    }

    async fn reload(&self) -> Result<(), LogindError> {
        let [name, path, interface] = SYSTEMD;
        let arguments = ("systemd-logind.service", "all", SIGHUP);
        self.connection
            .call_method(Some(name), path, Some(interface), "KillUnit", &arguments)
            .await
            .map(drop)
            .map_err(|source| call("have logind read its configuration", source))
    }

    /// Holds shutdowns up.
    pub async fn inhibit(&self) -> Result<Lock, LogindError> {
        let why = "Kubelet needs time to handle node shutdown";
        let arguments = ("shutdown", "kubelet", why, "delay");
        let lock = self.manager.call("Inhibit", &arguments).await;
        lock.map(Lock)
            .map_err(|source| call("hold shutdowns up", source))
    }

    /// Shutdowns that begin (`true`) and that are called off, until the connection ends.
    pub async fn shutdowns(&self) -> Result<impl Stream<Item = bool> + Unpin + use<>, LogindError> {
        let what = "hear of shutdowns";
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface(MANAGER)
            .and_then(|rule| rule.member("PrepareForShutdown"))
            .and_then(|rule| rule.path(PATH));
        let rule = rule.map_err(|source| call(what, source))?.build();
        let signals = MessageStream::for_match_rule(rule, &self.connection, None).await;
        let signals = signals.map_err(|source| call(what, source))?;
        // The stream ends with its first error: the bus is gone.
        let good = signals.take_while(|message| std::future::ready(message.is_ok()));
        let begins =
            good.filter_map(|message| async { message.ok()?.body().deserialize::<bool>().ok() });
        Ok(Box::pin(begins))
    }
}

fn call(what: &'static str, source: zbus::Error) -> LogindError {
    let source = Box::new(source);
    LogindError::Call { what, source }
}

fn write_drop_in(wanted: Duration) -> Result<(), LogindError> {
    let path = PathBuf::from(DROP_IN);
    let text = format!(
        "# So that pods can end before this machine goes down.\n[Login]\nInhibitDelayMaxSec={}\n",
        wanted.as_secs()
    );
    let dir = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    dir.and_then(|()| std::fs::write(&path, text))
        .map_err(|source| LogindError::Write { path, source })
}
