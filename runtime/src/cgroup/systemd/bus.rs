//! Calls of systemd's manager: org.freedesktop.systemd1(5).
//!
//! Over the system bus: on its own socket, /run/systemd/private, systemd signs its
//! messages with a name that zbus 5.19 takes for no sender's, and panics.

use super::properties::{Property, Value};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, broadcast};
use zbus::message::Type;
use zbus::zvariant::{OwnedObjectPath, Value as Variant};
use zbus::{Connection, MatchRule, MessageStream};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// Ends of jobs that a waiter may be behind.
const BACKLOG: usize = 1024;

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("D-Bus")]
    Bus(#[from] zbus::Error),
    #[error("the job ended as {0:?}; see systemctl status and journalctl for the unit")]
    Job(String),
    #[error("the connection was closed")]
    Closed,
    #[error("no answer in 30 s; is pid 1 systemd, and not overloaded?")]
    Silent,
}

/// Where an answer goes.
pub type Answer<T> = SyncSender<Result<T, Box<BusError>>>;

/// What can be asked.
#[derive(Debug)]
pub enum Call {
    /// Answers `false` when the unit was there.
    Start {
        unit: String,
        properties: Vec<Property>,
        answer: Answer<bool>,
    },
    Set {
        unit: String,
        properties: Vec<Property>,
        answer: Answer<()>,
    },
    Stop {
        unit: String,
        answer: Answer<()>,
    },
}

/// A connection, made when it is needed and anew when it broke: systemd drops
/// all of its own when it is executed anew.
#[derive(Debug, Default, Clone)]
pub struct Bus(Arc<Mutex<Option<Manager>>>);

impl Bus {
    /// Runs calls, side by side, until nobody is left to ask.
    pub async fn serve(self, mut calls: UnboundedReceiver<Call>) {
        while let Some(call) = calls.recv().await {
            let bus = self.clone();
            tokio::spawn(async move { bus.answer(call).await });
        }
    }

    async fn answer(&self, call: Call) {
        match call {
            Call::Start {
                unit,
                properties,
                answer,
            } => {
                let started = self
                    .twice(|m| m.start(unit.clone(), properties.clone()))
                    .await;
                let _ = answer.send(started.map_err(Box::new));
            }
            Call::Set {
                unit,
                properties,
                answer,
            } => {
                let set = self
                    .twice(|m| m.set(unit.clone(), properties.clone()))
                    .await;
                let _ = answer.send(set.map_err(Box::new));
            }
            Call::Stop { unit, answer } => {
                let stopped = self.twice(|m| m.stop(unit.clone())).await;
                let _ = answer.send(stopped.map_err(Box::new));
            }
        }
    }

    /// Once more on a new connection, if the one there was is broken.
    async fn twice<T, F>(&self, call: impl Fn(Manager) -> F) -> Result<T, BusError>
    where
        F: Future<Output = Result<T, BusError>>,
    {
        match call(self.manager().await?).await {
            Err(BusError::Bus(zbus::Error::InputOutput(_)) | BusError::Closed) => {
                *self.0.lock().await = None;
                call(self.manager().await?).await
            }
            done => done,
        }
    }

    async fn manager(&self) -> Result<Manager, BusError> {
        let mut manager = self.0.lock().await;
        if let Some(manager) = &*manager {
            return Ok(manager.clone());
        }
        let made = Manager::connect().await?;
        Ok(manager.insert(made).clone())
    }
}

#[derive(Debug, Clone)]
struct Manager {
    connection: Connection,
    /// Jobs that have ended, and how.
    ended: broadcast::Sender<(OwnedObjectPath, String)>,
}

impl Manager {
    async fn connect() -> Result<Self, BusError> {
        let connection = Connection::system().await?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface(MANAGER)?
            .member("JobRemoved")?
            .build();
        let signals = MessageStream::for_match_rule(rule, &connection, None).await?;
        let (ended, _) = broadcast::channel(BACKLOG);
        tokio::spawn(follow(signals, ended.clone()));
        let manager = Self { connection, ended };
        // The bus is told of jobs only when somebody wants to know.
        manager.call("Subscribe", &()).await?;
        Ok(manager)
    }

    async fn call<B>(&self, method: &'static str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let interface = Some(MANAGER);
        let connection = &self.connection;
        connection
            .call_method(Some(NAME), PATH, interface, method, body)
            .await
    }

    async fn start(self, unit: String, properties: Vec<Property>) -> Result<bool, BusError> {
        let mut ended = self.ended.subscribe();
        let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit.as_str(), "replace", variants(&properties), auxiliary);
        let answer = match self.call("StartTransientUnit", &body).await {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == UNIT_EXISTS => {
                return Ok(false);
            }
            other => other?,
        };
        let job: OwnedObjectPath = answer.body().deserialize()?;
        loop {
            match ended.recv().await {
                Ok((path, result)) if path == job => {
                    return match result.as_str() {
                        "done" => Ok(true),
                        _ => Err(BusError::Job(result)),
                    };
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(BusError::Closed),
            }
        }
    }

    async fn set(self, unit: String, properties: Vec<Property>) -> Result<(), BusError> {
        // Gone with the unit or the boot.
        let runtime = true;
        let body = (unit.as_str(), runtime, variants(&properties));
        self.call("SetUnitProperties", &body).await?;
        Ok(())
    }

    async fn stop(self, unit: String) -> Result<(), BusError> {
        match self.call("StopUnit", &(unit.as_str(), "replace")).await {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == NO_SUCH_UNIT => {}
            other => drop(other?),
        }
        Ok(())
    }
}

/// Passes on the ends of jobs until the connection ends.
async fn follow(mut signals: MessageStream, ended: broadcast::Sender<(OwnedObjectPath, String)>) {
    type JobRemoved = (u32, OwnedObjectPath, String, String);
    while let Some(Ok(message)) = signals.next().await {
        if let Ok((_, job, _, result)) = message.body().deserialize::<JobRemoved>() {
            // Nobody waits for jobs of others.
            let _ = ended.send((job, result));
        }
    }
}

fn variants(properties: &[Property]) -> Vec<(&'static str, Variant<'static>)> {
    let variant = |value: &Value| match value {
        Value::Bool(given) => Variant::from(*given),
        Value::U64(number) => Variant::from(*number),
        Value::Text(text) => Variant::from(text.clone()),
        Value::Bytes(bytes) => Variant::from(bytes.clone()),
        Value::Pids(pids) => Variant::from(pids.clone()),
    };
    properties
        .iter()
        .map(|(name, value)| (*name, variant(value)))
        .collect()
}
