//! Which write an event becomes: a new object or a higher count.

use super::Said;
use crate::defaults;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// What to send.
#[derive(Debug, Clone)]
pub enum Write {
    /// POST.
    New { name: String, said: Said },
    /// PATCH of one that exists.
    Count {
        name: String,
        said: Said,
        count: i32,
    },
}

/// What has been said lately.
#[derive(Default)]
pub struct Aggregate {
    events: HashMap<Key, Known>,
    similar: HashMap<Key, Similar>,
    serial: u64,
}

/// One event; with an empty message, all that differ only in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    namespace: String,
    name: String,
    field_path: String,
    kind: bool,
    reason: String,
    message: String,
}

struct Known {
    name: String,
    count: i32,
    seen: Instant,
}

struct Similar {
    messages: BTreeSet<String>,
    seen: Instant,
}

impl Aggregate {
    /// Takes note of one more.
    pub fn add(&mut self, mut said: Said, now: Instant) -> Write {
        self.forget(now);
        if self.too_many_alike(&said, now) {
            said.message = format!("(combined from similar events): {}", said.message);
        }
        let key = key(&said, aggregated_message(&said));
        if let Some(known) = self.events.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            known.seen = now;
            let (name, count) = (known.name.clone(), known.count);
            return Write::Count { name, said, count };
        }
        let name = self.new_name(&said);
        let known = Known {
            name: name.clone(),
            count: 1,
            seen: now,
        };
        self.events.insert(key, known);
        Write::New { name, said }
    }

    /// The object behind a count is gone: begin a new one.
    pub fn renew(&mut self, said: &Said) -> Write {
        let name = self.new_name(said);
        if let Some(known) = self.events.get_mut(&key(said, aggregated_message(said))) {
            known.name.clone_from(&name);
            known.count = 1;
        }
        Write::New {
            name,
            said: said.clone(),
        }
    }

    fn too_many_alike(&mut self, said: &Said, now: Instant) -> bool {
        let similar = self
            .similar
            .entry(key(said, ""))
            .or_insert_with(|| Similar {
                messages: BTreeSet::new(),
                seen: now,
            });
        similar.seen = now;
        if similar.messages.len() < defaults::EVENT_SIMILAR_LIMIT {
            similar.messages.insert(said.message.clone());
            return false;
        }
        !similar.messages.contains(&said.message)
    }

    fn forget(&mut self, now: Instant) {
        let fresh = |seen: Instant| now.duration_since(seen) < defaults::EVENT_MEMORY;
        self.events.retain(|_, known| fresh(known.seen));
        self.similar.retain(|_, similar| fresh(similar.seen));
    }

    /// `<object>.<hexadecimal time>`, as kubectl expects to see.
    fn new_name(&mut self, said: &Said) -> String {
        self.serial += 1;
        let nanos = said.at.as_nanosecond() + i128::from(self.serial);
        let object = said.about.name.as_deref().unwrap_or("unknown");
        format!("{object}.{nanos:x}")
    }
}

fn aggregated_message(said: &Said) -> &str {
    match said.message.starts_with("(combined from similar events): ") {
        true => "(combined)",
        false => &said.message,
    }
}

fn key(said: &Said, message: &str) -> Key {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Key {
        uid: text(&said.about.uid),
        namespace: text(&said.about.namespace),
        name: text(&said.about.name),
        field_path: text(&said.about.field_path),
        kind: said.kind == crate::event::EventType::Warning,
        reason: said.reason.clone(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;

    fn said(message: &str) -> Said {
        Said {
            about: k8s_openapi::api::core::v1::ObjectReference {
                name: Some("p".into()),
                ..Default::default()
            },
            kind: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn add_counts_when_the_same_is_said_again() {
        let mut aggregate = Aggregate::default();
        let now = Instant::now();
        let Write::New { name, .. } = aggregate.add(said("a"), now) else {
            panic!("not new")
        };
        match aggregate.add(said("a"), now) {
            Write::Count { name: n, count, .. } => assert_eq!((n, count), (name, 2)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(aggregate.add(said("b"), now), Write::New { .. }));
    }

    #[test]
    fn add_combines_when_too_many_differ_only_in_their_text() {
        let mut aggregate = Aggregate::default();
        let now = Instant::now();
        for i in 0..defaults::EVENT_SIMILAR_LIMIT {
            assert!(matches!(
                aggregate.add(said(&i.to_string()), now),
                Write::New { .. }
            ));
        }
        let Write::New { said: first, .. } = aggregate.add(said("x"), now) else {
            panic!("not new")
        };
        assert_eq!(first.message, "(combined from similar events): x");
        assert!(matches!(
            aggregate.add(said("y"), now),
            Write::Count { count: 2, .. }
        ));
    }

    #[test]
    fn add_begins_anew_when_enough_time_has_passed() {
        let mut aggregate = Aggregate::default();
        let now = Instant::now();
        aggregate.add(said("a"), now);
        let later = now + defaults::EVENT_MEMORY;
        assert!(matches!(aggregate.add(said("a"), later), Write::New { .. }));
    }
}
