//! Keys of a ConfigMap or Secret as files.

use super::{File, Files};
use crate::volume::error::VolumeReason;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};
use std::collections::BTreeMap;

/// What a volume wants of one object.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub items: Option<&'a [KeyToPath]>,
    pub optional: bool,
    pub mode: u32,
}

pub type Data<'a> = BTreeMap<&'a str, &'a [u8]>;

pub fn of_config_map(object: &ConfigMap) -> Data<'_> {
    let text = object.data.iter().flatten();
    let binary = object.binary_data.iter().flatten();
    text.map(|(k, v)| (k.as_str(), v.as_bytes()))
        .chain(binary.map(|(k, v)| (k.as_str(), v.0.as_slice())))
        .collect()
}

pub fn of_secret(object: &Secret) -> Data<'_> {
    let data = object.data.iter().flatten();
    let plain = object.string_data.iter().flatten();
    data.map(|(k, v)| (k.as_str(), v.0.as_slice()))
        .chain(plain.map(|(k, v)| (k.as_str(), v.as_bytes())))
        .collect()
}

/// All keys under their own names, or the items under theirs. A missing key of
/// an optional object is left out.
pub fn select(
    lacks: &'static str,
    data: &Data<'_>,
    wanted: &Wanted<'_>,
) -> Result<Files, VolumeReason> {
    let file = |bytes: &[u8], mode| File {
        data: bytes.to_vec(),
        mode,
        owner: None,
    };
    let Some(items) = wanted.items.filter(|items| !items.is_empty()) else {
        let all = data.iter();
        return Ok(all
            .map(|(k, v)| ((*k).to_owned(), file(v, wanted.mode)))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                let mode = super::mode(item.mode, wanted.mode.cast_signed());
                files.insert(item.path.clone(), file(bytes, mode));
            }
            None if wanted.optional => {}
            None => {
                return Err(VolumeReason::MissingKey {
                    what: lacks,
                    key: item.key.clone(),
                });
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::CONFIG_MAP_LACKS;
    use super::*;

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath {
            key: key.into(),
            path: path.into(),
            mode,
            user: None,
        }
    }

    fn wanted<'a>(items: &'a [KeyToPath], optional: bool) -> Wanted<'a> {
        Wanted {
            name: "x",
            items: Some(items),
            optional,
            mode: 0o644,
        }
    }

    #[test]
    fn without_items_every_key_is_a_file_binary_ones_too() {
        let object: ConfigMap = serde_json::from_value(serde_json::json!({
            "data": {"a": "1"}, "binaryData": {"b": "AP8="}
        }))
        .unwrap();
        let files = select(
            CONFIG_MAP_LACKS,
            &of_config_map(&object),
            &wanted(&[], false),
        )
        .unwrap();
        assert_eq!(files["a"].data, b"1");
        assert_eq!(files["b"].data, [0x00, 0xff]);
        assert_eq!(files["a"].mode, 0o644);
    }

    #[test]
    fn items_choose_name_and_mode_the_files() {
        let data = Data::from([("a", b"1".as_slice()), ("b", b"2")]);
        let items = [item("a", "dir/x", Some(0o400))];
        let files = select(CONFIG_MAP_LACKS, &data, &wanted(&items, false)).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(
            (files["dir/x"].data.as_slice(), files["dir/x"].mode),
            (b"1".as_slice(), 0o400)
        );
    }

    #[test]
    fn a_missing_key_fails_unless_the_object_is_optional() {
        let items = [item("nope", "x", None)];
        let refused = select(CONFIG_MAP_LACKS, &Data::new(), &wanted(&items, false)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "configmap references non-existent config key: nope"
        );
        assert!(
            select(CONFIG_MAP_LACKS, &Data::new(), &wanted(&items, true))
                .unwrap()
                .is_empty()
        );
    }
}
