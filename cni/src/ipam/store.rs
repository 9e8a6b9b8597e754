use super::Range;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Taken while the folder is changed; other processes may share it.
const LOCK: &str = "lock";
/// Prefix of the files that remember where each range goes on.
const LAST: &str = "last_reserved_ip.";

/// Why no address was reserved or given back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder can't be used.
    #[error("address reservations in {}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// All addresses are taken.
    #[error(
        "no free address in {subnet}: {taken} are reserved in {}; delete pods, or give the node a larger podCIDR",
        dir.display()
    )]
    Exhausted {
        /// The subnet.
        subnet: String,
        /// Reservations in the folder.
        taken: usize,
        /// The folder.
        dir: PathBuf,
    },
}

/// An address, its owner, and the owner's interface; older versions of the
/// reference left the last one out.
pub type Reservation = (IpAddr, String, String);

/// A folder of reservations, all made under its lock.
///
/// Several runtimes may share it, each with a folder of its own besides. Whose a reservation
/// is, is told by a third line, which those of the folder's first user lack.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// Our own folder, if we are not the first.
    guest: Option<PathBuf>,
}

/// The lock, given back when dropped.
struct Locked(#[allow(dead_code)] File);

impl Store {
    /// The folder, made if it is missing.
    pub fn open(dir: PathBuf) -> Result<Self, StoreError> {
        match fs::create_dir_all(&dir) {
            Ok(()) => Ok(Self { dir, guest: None }),
            Err(source) => Err(StoreError::Io { path: dir, source }),
        }
    }

    /// Somebody else's folder, for a runtime whose own is `guest`. When that is gone, so is
    /// what it has reserved.
    pub fn share(dir: PathBuf, guest: PathBuf) -> Result<Self, StoreError> {
        let guest = Some(guest);
        Ok(Self {
            guest,
            ..Self::open(dir)?
        })
    }

    /// Takes over what earlier versions kept elsewhere; what is here already is newer.
    pub fn take_over(&self, old: &Path) -> Result<(), StoreError> {
        if old == self.dir || !old.exists() {
            return Ok(());
        }
        let before = Self::open(old.to_owned())?;
        let _lock = self.lock()?;
        for (ip, owner, interface) in before.reservations()? {
            self.take(ip, &owner, &interface)?;
        }
        fs::remove_dir_all(old).map_err(|e| before.error("", e))
    }

    /// Reserves the next free address of the range for the owner. An owner
    /// that has one in the range already is given that one again.
    pub fn reserve(
        &self,
        range: &Range,
        slot: usize,
        owner: &str,
        interface: &str,
    ) -> Result<IpAddr, StoreError> {
        let _lock = self.lock()?;
        let reserved = self.reservations()?;
        let mine = |r: &&Reservation| {
            r.1 == owner && (r.2 == interface || r.2.is_empty()) && range.offers(r.0)
        };
        match reserved.iter().find(mine) {
            Some((ip, ..)) => Ok(*ip),
            None => self.next_free(range, slot, owner, interface),
        }
    }

    /// As [`reserve`](Self::reserve), for an owner that has none in the range: whom
    /// all the others belong to is not read.
    pub fn reserve_first(
        &self,
        range: &Range,
        slot: usize,
        owner: &str,
        interface: &str,
    ) -> Result<IpAddr, StoreError> {
        let _lock = self.lock()?;
        self.next_free(range, slot, owner, interface)
    }

    fn next_free(
        &self,
        range: &Range,
        slot: usize,
        owner: &str,
        interface: &str,
    ) -> Result<IpAddr, StoreError> {
        let last = fs::read_to_string(self.dir.join(format!("{LAST}{slot}")));
        let last = last.ok().and_then(|text| text.trim().parse().ok());
        for ip in range.after(last) {
            if self.take(ip, owner, interface)? {
                self.remember(slot, ip);
                return Ok(ip);
            }
        }
        Err(StoreError::Exhausted {
            subnet: range.subnet().to_string(),
            taken: self.reservations()?.len(),
            dir: self.dir.clone(),
        })
    }

    /// Gives back these addresses, as far as they are the owner's; all that it has,
    /// if none is named.
    pub fn give_back(&self, owner: &str, ips: &[IpAddr]) -> Result<(), StoreError> {
        if ips.is_empty() {
            return self.release(owner);
        }
        let _lock = self.lock()?;
        for ip in ips {
            let name = ip.to_string();
            let text = fs::read_to_string(self.dir.join(&name)).unwrap_or_default();
            if text.lines().next().is_some_and(|line| line.trim() == owner) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Gives back all of the owner's addresses; none is fine.
    pub fn release(&self, owner: &str) -> Result<(), StoreError> {
        self.release_where(|id, _| id == owner)
    }

    /// Gives back those of our addresses that have these owners and interfaces; both are
    /// empty where a crash left an empty file.
    pub fn release_where(&self, gone: impl Fn(&str, &str) -> bool) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        for (ip, id, interface) in self.own()? {
            if gone(&id, &interface) {
                self.remove(&ip.to_string())?;
            }
        }
        Ok(())
    }

    /// Every reservation with its owner and interface.
    pub fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        self.reservations_where(|_| true)
    }

    /// Those of this runtime; for the folder's first user also those of runtimes that are no more.
    pub fn own(&self) -> Result<Vec<Reservation>, StoreError> {
        self.reservations_where(|runtime| match &self.guest {
            Some(guest) => Path::new(runtime) == guest,
            None => runtime.is_empty() || !Path::new(runtime).exists(),
        })
    }

    fn reservations_where(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Reservation>, StoreError> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.dir).map_err(|e| self.error("", e))?;
        for entry in entries {
            let name = entry.map_err(|e| self.error("", e))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let Ok(ip) = name.parse() else {
                continue;
            };
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            let mut lines = text.lines().map(|line| line.trim().to_owned());
            let mut line = || lines.next().unwrap_or_default();
            let (owner, interface, runtime) = (line(), line(), line());
            if wanted(&runtime) {
                found.push((ip, owner, interface));
            }
        }
        Ok(found)
    }

    /// Makes the file of an address, with its content from the start; false if
    /// somebody has it.
    fn take(&self, ip: IpAddr, owner: &str, interface: &str) -> Result<bool, StoreError> {
        let name = ip.to_string();
        let path = self.dir.join(&name);
        let temporary = self.dir.join(".new");
        // A file without an owner is what a crash left of one.
        if fs::metadata(&path).is_ok_and(|m| m.len() == 0) {
            self.remove(&name)?;
        }
        let mut content = format!("{owner}\r\n{interface}");
        if let Some(guest) = &self.guest {
            content += &format!("\r\n{}", guest.display());
        }
        let linked = write_new(&temporary, content.as_bytes())
            .map_err(|e| (".new", e))
            .and_then(|()| fs::hard_link(&temporary, &path).map_err(|e| (name.as_str(), e)));
        match linked {
            Ok(()) => Ok(true),
            Err((_, e)) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err((file, e)) => {
                // A full disk: half of it would stay there.
                let _ = fs::remove_file(&temporary);
                Err(self.error(file, e))
            }
        }
    }

    /// Only a hint: losing it costs nothing.
    fn remember(&self, slot: usize, ip: IpAddr) {
        let _ = fs::write(self.dir.join(format!("{LAST}{slot}")), ip.to_string());
        let _ = fs::remove_file(self.dir.join(".new"));
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error(name, e)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> Result<Locked, StoreError> {
        let open = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.join(LOCK));
        let file = open.map_err(|e| self.error(LOCK, e))?;
        let locked = flock(&file, FlockOperation::LockExclusive);
        locked.map_err(|e| self.error(LOCK, e.into()))?;
        Ok(Locked(file))
    }

    fn error(&self, name: &str, source: io::Error) -> StoreError {
        StoreError::Io {
            path: self.dir.join(name),
            source,
        }
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // A fresh inode: the old one may be linked to an address.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    File::create_new(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    fn range() -> Range {
        Range::new("10.0.0.0/29".parse().unwrap(), None, None, None).unwrap()
    }

    #[test]
    fn store_gives_each_owner_its_own_address_and_the_same_again() {
        let dir = TempDir::new();
        let store = Store::open(dir.path().to_owned()).unwrap();
        let a = store.reserve(&range(), 0, "a", "eth0").unwrap();
        let b = store.reserve(&range(), 0, "b", "eth0").unwrap();
        assert_ne!(a, b);
        assert_eq!(store.reserve(&range(), 0, "a", "eth0").unwrap(), a);
        let content = fs::read_to_string(dir.path().join(a.to_string())).unwrap();
        assert_eq!(content, "a\r\neth0");
    }

    #[test]
    fn store_says_so_when_nothing_is_free() {
        let dir = TempDir::new();
        let store = Store::open(dir.path().to_owned()).unwrap();
        for n in 0..5 {
            store.reserve(&range(), 0, &n.to_string(), "eth0").unwrap();
        }
        let full = store.reserve(&range(), 0, "late", "eth0").unwrap_err();
        assert!(full.to_string().contains("5 are reserved"), "{full}");
        store.release("3").unwrap();
        store.release("3").unwrap();
        assert!(store.reserve(&range(), 0, "late", "eth0").is_ok());
    }

    #[test]
    fn store_takes_over_a_file_that_a_crash_left_empty() {
        let dir = TempDir::new();
        let store = Store::open(dir.path().to_owned()).unwrap();
        fs::write(dir.path().join("10.0.0.2"), "").unwrap();
        let ip = store.reserve(&range(), 0, "a", "eth0").unwrap();
        assert_eq!(ip.to_string(), "10.0.0.2");
    }

    #[test]
    fn store_takes_named_addresses_back_from_their_owner_alone() {
        let dir = TempDir::new();
        let store = Store::open(dir.path().to_owned()).unwrap();
        let a = store.reserve_first(&range(), 0, "a", "eth0").unwrap();
        let b = store.reserve_first(&range(), 0, "b", "eth0").unwrap();
        store.give_back("a", &[a, b]).unwrap();
        let left = store.reservations().unwrap();
        assert_eq!(left, [(b, "b".to_owned(), "eth0".to_owned())]);
        store.give_back("b", &[]).unwrap();
        assert!(store.reservations().unwrap().is_empty());
    }

    #[test]
    fn runtimes_share_a_folder_and_give_back_their_own_alone() {
        let dir = TempDir::new();
        let (home, run) = (dir.path().join("ipam"), dir.path().join("second"));
        fs::create_dir(&run).unwrap();
        let first = Store::open(home.clone()).unwrap();
        let second = Store::share(home, run.clone()).unwrap();
        let a = first.reserve_first(&range(), 0, "a", "eth0").unwrap();
        let b = second.reserve_first(&range(), 0, "b", "eth0").unwrap();
        assert_ne!(a, b);
        let owners = |store: &Store| -> Vec<String> {
            store.own().unwrap().into_iter().map(|r| r.1).collect()
        };
        assert_eq!(
            (owners(&first), owners(&second)),
            (vec!["a".into()], vec!["b".into()])
        );
        first.release_where(|_, _| true).unwrap();
        assert_eq!(owners(&second), ["b"]);
        // Of one that is no more.
        fs::remove_dir(&run).unwrap();
        assert_eq!(owners(&first), ["b"]);
        first.release_where(|_, _| true).unwrap();
        assert!(first.reservations().unwrap().is_empty());
    }

    #[test]
    fn addresses_of_an_earlier_version_are_taken_over_once() {
        let dir = TempDir::new();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let before = Store::open(old.clone()).unwrap();
        for id in ["a", "b"] {
            before.reserve_first(&range(), 0, id, "eth0").unwrap();
        }
        let store = Store::share(new.clone(), dir.path().to_owned()).unwrap();
        fs::write(new.join("10.0.0.3"), "now").unwrap();
        store.take_over(&old).unwrap();
        store.take_over(&old).unwrap();
        let own = store.own().unwrap();
        let moved = ("10.0.0.2".parse().unwrap(), "a".into(), "eth0".into());
        assert_eq!(own, [moved]);
        assert_eq!(fs::read_to_string(new.join("10.0.0.3")).unwrap(), "now");
        assert!(!old.exists());
    }

    #[test]
    fn store_keeps_only_the_living() {
        let dir = TempDir::new();
        let store = Store::open(dir.path().to_owned()).unwrap();
        for id in ["a", "b", "c"] {
            store.reserve(&range(), 0, id, "eth0").unwrap();
        }
        store.release_where(|id, _| id != "b").unwrap();
        let left = store.reservations().unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].1, "b");
    }
}
