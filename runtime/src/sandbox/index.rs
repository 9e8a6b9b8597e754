//! Things by id, found also by a beginning of the id that is unique.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Has an id of 64 hex digits.
pub trait Identified {
    /// The id.
    fn id(&self) -> &str;
}

/// A beginning of several ids.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{prefix:?} is the beginning of {count} ids; give more of it")]
pub struct Ambiguous {
    /// What was asked for.
    pub prefix: String,
    /// How many ids begin so.
    pub count: usize,
}

/// All sandboxes, or all containers.
#[derive(Debug)]
pub struct Index<T> {
    all: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            all: RwLock::default(),
        }
    }
}

impl<T: Identified> Index<T> {
    fn map<R>(&self, read: impl FnOnce(&BTreeMap<String, Arc<T>>) -> R) -> R {
        read(&self.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds one.
    pub fn insert(&self, item: Arc<T>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(item.id().to_owned(), item);
    }

    /// Takes one out.
    pub fn remove(&self, id: &str) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(id);
    }

    /// By its whole id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<T>> {
        self.map(|all| all.get(id).cloned())
    }

    /// By its id or a beginning of it.
    ///
    /// # Errors
    /// When several ids begin so.
    pub fn find(&self, prefix: &str) -> Result<Option<Arc<T>>, Ambiguous> {
        if prefix.is_empty() {
            return Ok(None);
        }
        self.map(|all| {
            if let Some(exact) = all.get(prefix) {
                return Ok(Some(exact.clone()));
            }
            let from = all.range(prefix.to_owned()..);
            let mut found = from.take_while(|(id, _)| id.starts_with(prefix));
            let first = found.next().map(|(_, item)| item.clone());
            match found.count() {
                0 => Ok(first),
                more => Err(Ambiguous {
                    prefix: prefix.to_owned(),
                    count: more + 1,
                }),
            }
        })
    }

    /// All, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<T>> {
        self.map(|all| all.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Item(&'static str);

    impl Identified for Item {
        fn id(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn beginning_of_an_id_finds_it_only_when_unique() {
        let index = Index::default();
        for id in ["abc1", "abd2", "b"] {
            index.insert(Arc::new(Item(id)));
        }
        let find = |prefix| index.find(prefix).map(|found| found.map(|item| item.0));
        assert_eq!(find("abc"), Ok(Some("abc1")));
        assert_eq!(find("b"), Ok(Some("b")));
        assert_eq!(find("x"), Ok(None));
        assert_eq!(find(""), Ok(None));
        assert_eq!(find("ab").map_err(|e| e.count), Err(2));
    }
}
