//! Every parser that eats what strangers write, fed with damaged input. None
//! may panic, and what it accepts must keep its promises.

use super::layer::tar::{Kind, Reader};
use super::layer::{extract, fuzzed as layer};
use super::reference::Reference;
use super::registry::{fuzzed as registry, manifest};
use super::testing::TempDir;
use fuzz::Fuzz;

#[test]
fn reference_that_is_accepted_means_the_same_when_written_out() {
    let digest = format!("a/b@sha256:{}", "0a".repeat(32));
    let seeds = ["busybox", "reg.io:5000/a/b_c:v1.2", "[::1]:80/x", &digest];
    let words = ["/", ":", "@", "..", "[", "]", "docker.io", "%2e"];
    Fuzz::new("image reference", seeds)
        .words(&words)
        .text(|input| {
            if let Ok(reference) = Reference::parse(input) {
                let again = Reference::parse(&reference.to_string());
                assert_eq!(again.as_ref(), Ok(&reference), "{input:?}");
                assert!(!reference.repository().contains(".."), "{input:?}");
            }
        });
}

#[test]
fn manifest_of_a_stranger_does_no_harm() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let of = format!(r#"{{"mediaType":"x","digest":"{digest}","size":7}}"#);
    let image = format!(r#"{{"schemaVersion":2,"config":{of},"layers":[{of}]}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{of}]}}"#);
    let words = [
        "\"manifests\":[]",
        "-",
        "e99",
        "null",
        "[[[[",
        "\"size\":",
        "{",
    ];
    Fuzz::new("image manifest", [image, index])
        .words(&words)
        .bytes(|input| {
            if let Ok(manifest::Document::Index(entries)) = manifest::parse(input, "") {
                let _ = manifest::choose(&entries, &manifest::Platform::host());
            }
        });
}

#[test]
fn challenge_of_a_stranger_does_no_harm() {
    let seeds = [
        r#"Bearer realm="https://a/t",service="s",scope="repository:a:pull""#,
        r#"Basic realm="x", Bearer realm=y"#,
    ];
    Fuzz::new("WWW-Authenticate", seeds)
        .words(&["\"", "\\", "=", ",", " ", "Bearer", "Basic"])
        .text(registry::challenge);
}

#[test]
fn redirect_of_a_stranger_leads_to_a_url_or_nowhere() {
    let seeds = [
        "https://a.io/b?c",
        "//b:5000/c",
        "/c?d#e",
        "c",
        "http://u:p@h/",
    ];
    let words = [
        ":", "/", "//", "://", "@", "?", "#", "[", "\0", "https:", "..",
    ];
    Fuzz::new("Location", seeds)
        .words(&words)
        .text(registry::location);
}

#[test]
fn retry_after_of_a_stranger_is_seconds_or_nothing() {
    let seeds = ["120", "0", "Fri, 31 Dec 1999 23:59:59 GMT"];
    Fuzz::new("Retry-After", seeds)
        .words(&["-", "+", " ", "18446744073709551615", "e9"])
        .bytes(registry::retry_after);
}

#[test]
fn damaged_configuration_does_no_harm() {
    let toml = "server = \"https://a\"\n[host.\"http://b\"]\ncapabilities = [\"pull\"]\n";
    Fuzz::new("hosts.toml", [toml])
        .words(&["[", "]", "\"", "=", "host", "ca"])
        .text(registry::hosts_toml);
    let yaml = "mirrors:\n  a:\n    endpoint: [http://b]\n    rewrite: {'^x': y}\n";
    Fuzz::new("registries.yaml", [yaml])
        .words(&["&a", "*a", ": ", "- ", "{", "(", "!!"])
        .text(registry::registries_yaml);
}

#[test]
fn pax_header_of_a_stranger_does_no_harm() {
    let seed = b"12 path=a/b\n13 size=1234\n29 GNU.sparse.map=0,10,20,30\n";
    Fuzz::new("pax header", [seed])
        .words(&["9", " ", "=", "\n", "GNU.sparse.", "-"])
        .bytes(layer::pax);
}

/// A bit of everything that a layer can hold.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_size(data.len() as u64);
        header.set_link_name_literal(link).unwrap();
        builder.append_data(&mut header, name, data).unwrap();
    };
    add(tar::EntryType::Directory, "d", "", b"");
    add(tar::EntryType::Regular, "d/f", "", &[1; 700]);
    add(tar::EntryType::Symlink, "s", "../../../outside", b"");
    add(tar::EntryType::Link, "h", "d/f", b"");
    add(tar::EntryType::Regular, "s/.wh.gone", "", b"");
    add(tar::EntryType::Fifo, "p", "", b"");
    add(tar::EntryType::Regular, &"long/".repeat(40), "", b"");
    builder.into_inner().unwrap()
}

/// Makes the checksum of every header right again, so that damage gets behind it.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

const TAR_WORDS: [&str; 6] = ["../", "/", "\0", ".wh.", "7777777777", "S"];

#[test]
fn archive_of_a_stranger_does_no_harm() {
    Fuzz::new("tar", [archive()])
        .words(&TAR_WORDS)
        .bytes(|bytes| {
            let mut bytes = bytes.to_vec();
            mend(&mut bytes);
            let mut reader = Reader::new(&bytes[..]);
            let mut buffer = [0; 4096];
            while let Ok(Some(entry)) = reader.next() {
                if let Kind::File(..) = entry.kind {
                    while reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
                }
            }
        });
}

#[test]
fn nothing_is_written_outside_whatever_an_archive_says() {
    let dir = TempDir::new();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, b"untouched").unwrap();
    Fuzz::new("layer", [archive()])
        .words(&TAR_WORDS)
        .one_in(10)
        .bytes(|bytes| {
            let mut bytes = bytes.to_vec();
            mend(&mut bytes);
            let diff = dir.path().join("layer");
            std::fs::create_dir(&diff).unwrap();
            let _ = extract(&bytes[..], &diff);
            super::disk::remove(&diff).unwrap();
        });
    assert_eq!(std::fs::read(&outside).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
