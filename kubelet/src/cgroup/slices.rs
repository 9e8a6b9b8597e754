//! Cgroups that systemd keeps: where it is the cgroup driver, what others make or write in its
//! tree is undone when it reloads, so it is told as well. systemd.slice(5),
//! org.freedesktop.systemd1(5).

use super::limits::Limits;
use super::tree::CgroupError;
use zbus::zvariant::Value;
use zbus::{Connection, Proxy};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

type Property = (&'static str, Value<'static>);

/// systemd's manager, over the system bus.
pub struct Slices(Proxy<'static>);

impl Slices {
    pub async fn connect() -> Result<Slices, CgroupError> {
        let connect = async {
            let connection = Connection::system().await?;
            Proxy::new(&connection, NAME, PATH, MANAGER).await
        };
        let manager = connect.await;
        Ok(Slices(
            manager.map_err(|e| CgroupError::NoBus(Box::new(e)))?,
        ))
    }

    /// Starts the slice, if it is not.
    pub async fn start(&self, unit: &str) -> Result<(), CgroupError> {
        let properties = of_slice();
        let auxiliary: Vec<(&str, Vec<Property>)> = Vec::new();
        let body = (unit, "replace", properties, auxiliary);
        let started = self.0.call_method("StartTransientUnit", &body).await;
        match started {
            Ok(_) => Ok(()),
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == UNIT_EXISTS => Ok(()),
            Err(source) => Err(failed("start", unit, source)),
        }
    }

    /// Until the next boot.
    pub async fn set(&self, unit: &str, limits: &Limits, v2: bool) -> Result<(), CgroupError> {
        let limits = limits.properties(v2).into_iter();
        let properties: Vec<Property> = limits.map(|(n, v)| (n, Value::U64(v))).collect();
        let body = (unit, true, properties);
        let set = self.0.call_method("SetUnitProperties", &body).await;
        set.map(drop).map_err(|e| failed("limit", unit, e))
    }
}

fn failed(call: &'static str, unit: &str, source: zbus::Error) -> CgroupError {
    CgroupError::Unit {
        call,
        unit: unit.to_owned(),
        source: Box::new(source),
    }
}

fn of_slice() -> Vec<Property> {
    let accounting = [
        "CPUAccounting",
        "MemoryAccounting",
        "IOAccounting",
        "TasksAccounting",
    ];
    let on = accounting.map(|name| (name, Value::Bool(true)));
    let description = Value::from("Kubernetes pods");
    // No stop at shutdown before its pods', no wait for sysinit.
    let unbound = ("DefaultDependencies", Value::Bool(false));
    let beside = [("Description", description), unbound];
    on.into_iter().chain(beside).collect()
}

/// The unit whose cgroup this is.
pub fn unit(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
