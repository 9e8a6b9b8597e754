//! Names of images; pure.

use super::record::ImageRecord;
use super::reference::Reference;
use super::{Image, digest::is_hex};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One image as written and as seen.
#[derive(Debug, Clone)]
pub struct Entry {
    pub record: ImageRecord,
    pub image: Arc<Image>,
}

/// All images by id, and by every name.
#[derive(Debug, Default)]
pub struct Index {
    entries: BTreeMap<String, Entry>,
    names: HashMap<String, String>,
}

impl Index {
    /// Puts an image in, in place of an older state of it.
    pub fn insert(&mut self, entry: Entry) {
        let id = entry.record.id.clone();
        self.remove(&id);
        for name in names(&entry.record) {
            self.names.insert(name.clone(), id.clone());
        }
        self.entries.insert(id, entry);
    }

    /// Takes an image out.
    pub fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.names.retain(|_, of| of != id);
        Some(entry)
    }

    /// The image of an id.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Other images that carry a name of `record`, as they are once they have lost it.
    pub fn losers(&self, record: &ImageRecord) -> Vec<ImageRecord> {
        let mut losers: BTreeMap<&str, ImageRecord> = BTreeMap::new();
        for name in names(record) {
            let Some(id) = self.names.get(name).filter(|id| **id != record.id) else {
                continue;
            };
            if let Some(entry) = self.entries.get(id) {
                let loser = losers.entry(id).or_insert_with(|| entry.record.clone());
                loser.repo_tags.retain(|tag| tag != name);
                loser.repo_digests.retain(|digest| digest != name);
            }
        }
        losers.into_values().collect()
    }

    /// An image by id (with or without `sha256:`), by name, or by a beginning
    /// of its id that no other image's has.
    pub fn resolve(&self, text: &str) -> Option<&Entry> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Some(entry) = self.entries.get(&format!("sha256:{hex}")) {
            return Some(entry);
        }
        let named = Reference::parse(text)
            .ok()
            .and_then(|reference| self.names.get(&reference.to_string()));
        if let Some(id) = named {
            return self.entries.get(id);
        }
        self.by_prefix(hex)
    }

    fn by_prefix(&self, hex: &str) -> Option<&Entry> {
        if hex.is_empty() || !is_hex(hex) {
            return None;
        }
        let prefix = format!("sha256:{hex}");
        let mut found = self
            .entries
            .range(prefix.clone()..)
            .take_while(|(id, _)| id.starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some((_, entry)), None) => Some(entry),
            _ => None,
        }
    }
}

fn names(record: &ImageRecord) -> impl Iterator<Item = &String> {
    record.repo_tags.iter().chain(&record.repo_digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: &str, tags: &[&str]) -> Entry {
        let id = format!("sha256:{first}{}", "0".repeat(64 - first.len()));
        let digest = format!(
            "docker.io/library/x@sha256:{first}{}",
            "f".repeat(64 - first.len())
        );
        let record = ImageRecord {
            id,
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            repo_digests: vec![digest],
            layers: vec![],
            config:
                r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
                    .to_owned(),
            manifest: None,
            pinned: false,
            pulled_at: 0,
        };
        let image = Arc::new(record.to_image("/".as_ref(), |_| None).unwrap());
        Entry { record, image }
    }

    fn index() -> Index {
        let mut index = Index::default();
        index.insert(entry("ab1", &["docker.io/library/x:latest"]));
        index.insert(entry("ab2", &["registry.k8s.io/y:1"]));
        index
    }

    #[test]
    fn index_resolves_every_kind_of_reference() {
        let index = index();
        let first = &entry("ab1", &[]).record.id;
        let hex = first.strip_prefix("sha256:").unwrap();
        let digest = format!("x@sha256:ab1{}", "f".repeat(61));
        for text in [
            "x",
            "docker.io/x:latest",
            first,
            hex,
            "ab1",
            "sha256:ab1",
            &digest,
        ] {
            assert_eq!(&index.resolve(text).unwrap().record.id, first, "{text}");
        }
    }

    #[test]
    fn index_resolves_nothing_when_the_prefix_is_ambiguous_or_the_name_unknown() {
        let index = index();
        for text in ["ab", "", "sha256:", "zz", "y", "x:other", "not a name"] {
            assert!(index.resolve(text).is_none(), "{text}");
        }
    }

    #[test]
    fn index_takes_a_tag_from_its_former_image() {
        let index = index();
        let moved = entry("cd", &["docker.io/library/x:latest"]);
        let losers = index.losers(&moved.record);
        assert_eq!(losers.len(), 1);
        assert!(losers[0].repo_tags.is_empty());
        assert_eq!(losers[0].repo_digests.len(), 1);
    }

    #[test]
    fn index_forgets_all_names_when_an_image_is_removed() {
        let mut index = index();
        let id = index.resolve("x").unwrap().record.id.clone();
        index.remove(&id);
        assert!(index.resolve("x").is_none());
        assert!(index.resolve("registry.k8s.io/y:1").is_some());
    }
}
