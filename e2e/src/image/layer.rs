//! From entries to a compressed tar: sorted, no times, no owners but root, so that it is stable.

use super::{Entry, Layer, busybox};
use crate::cache::{self, Cache};
use crate::{command, debian, peer};
use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where layers take their inputs from.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub cache: &'a Cache,
    /// `e2e/peers`.
    pub peers: PathBuf,
}

/// A built layer: what a manifest and a config say of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blob {
    pub digest: String,
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    #[serde(skip)]
    pub path: PathBuf,
}

/// Bumped when the bytes a layer gets for the same data change.
const FORMAT: &str = "1";

pub fn build(inputs: &Inputs, layer: &Layer) -> Result<Blob> {
    let key = key(inputs, layer)?;
    let entry = inputs.cache.entry("layers", "layer", &key, |dir| {
        let tar = match layer {
            Layer::Debian(name) => debian::files(&debian::package(inputs.cache, name)?)?,
            Layer::Packages(names) => packages(inputs.cache, names)?,
            Layer::Entries(entries) => archive(inputs, entries)?,
        };
        let path = dir.join("layer.tar.gz");
        // Level 1: layers are read from this machine's disk, time matters more than size.
        let mut gz = GzBuilder::new()
            .mtime(0)
            .write(fs::File::create(&path)?, Compression::new(1));
        gz.write_all(&tar)?;
        gz.finish()?;
        let blob = Blob {
            digest: format!("sha256:{}", cache::sha256_file(&path)?),
            size: fs::metadata(&path)?.len(),
            diff_id: format!("sha256:{}", cache::sha256(&tar)),
            path: PathBuf::new(),
        };
        fs::write(dir.join("blob.json"), serde_json::to_vec(&blob)?)?;
        Ok(())
    })?;
    let mut blob: Blob = serde_json::from_slice(&fs::read(entry.join("blob.json"))?)?;
    blob.path = entry.join("layer.tar.gz");
    Ok(blob)
}

/// Data, and the content of every file it names.
fn key(inputs: &Inputs, layer: &Layer) -> Result<String> {
    let mut parts = vec![FORMAT.to_owned(), format!("{layer:?}")];
    match layer {
        Layer::Debian(name) => parts.push(file_name(&debian::package(inputs.cache, name)?)),
        Layer::Packages(names) => {
            for name in *names {
                parts.push(file_name(&debian::package(inputs.cache, name)?));
            }
        }
        Layer::Entries(entries) => {
            for entry in *entries {
                match entry {
                    Entry::Program { peer, .. } => {
                        let path = peer::path(inputs.cache, &inputs.peers, peer)?;
                        parts.push(file_name(path.parent().unwrap_or(&path)));
                    }
                    Entry::Module { peers, .. } => {
                        let sums = inputs.peers.join(peers).join("go.sum");
                        parts.push(fs::read_to_string(sums)?);
                    }
                    Entry::CProgram { source, .. } => {
                        parts.push(fs::read_to_string(
                            inputs.peers.join("images").join(source),
                        )?);
                    }
                    Entry::Busybox => {
                        parts.push(busybox::key(&debian::source(inputs.cache, "busybox")?)?);
                    }
                    _ => {}
                }
            }
        }
    }
    let parts: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
    Ok(cache::key(&parts))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The packages' tars behind each other.
fn packages(cache: &Cache, names: &[&str]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for name in names {
        let tar = debian::files(&debian::package(cache, name)?)?;
        all.extend_from_slice(&tar[..end_of_entries(&tar)?]);
    }
    // Two blocks of zeros end a tar.
    all.resize(all.len() + 2 * BLOCK, 0);
    Ok(all)
}

const BLOCK: usize = 512;

fn end_of_entries(tar: &[u8]) -> Result<usize> {
    let mut end = 0;
    for entry in tar::Archive::new(tar).entries()? {
        let entry = entry?;
        end = entry.raw_file_position() as usize + (entry.size() as usize).next_multiple_of(BLOCK);
    }
    Ok(end)
}

fn archive(inputs: &Inputs, entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        match entry {
            Entry::Dir { path, mode } => dir(&mut tar, path, *mode)?,
            Entry::File {
                path,
                mode,
                content,
            } => {
                file(&mut tar, path, *mode, content.as_bytes())?;
            }
            Entry::Link { path, to } => link(&mut tar, tar::EntryType::Symlink, path, to)?,
            Entry::Program { path, peer } => {
                let program = fs::read(peer::path(inputs.cache, &inputs.peers, peer)?)?;
                file(&mut tar, path, 0o755, &program)?;
            }
            Entry::Module {
                path,
                peers,
                module,
                file: name,
            } => {
                let dir = peer::module_dir(&inputs.peers.join(peers), module)?;
                let content =
                    fs::read(dir.join(name)).with_context(|| format!("{module}: {name}"))?;
                file(&mut tar, path, 0o644, &content)?;
            }
            Entry::CProgram { path, mode, source } => {
                let program = compile(&inputs.peers.join("images").join(source))?;
                file(&mut tar, path, *mode, &program)?;
            }
            Entry::Busybox => busybox(&mut tar, inputs.cache)?,
        }
    }
    Ok(tar.into_inner()?)
}

type Tar = tar::Builder<Vec<u8>>;

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn dir(tar: &mut Tar, path: &str, mode: u32) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, 0);
    Ok(tar.append_data(&mut header, format!("{path}/"), &[][..])?)
}

fn file(tar: &mut Tar, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
    Ok(tar.append_data(&mut header, path, content)?)
}

/// A hard link's entry has a mode of its own, and extractors apply it: it must be the target's.
fn link(tar: &mut Tar, kind: tar::EntryType, path: &str, to: &str) -> Result<()> {
    let mode = if kind == tar::EntryType::Symlink {
        0o777
    } else {
        0o755
    };
    Ok(tar.append_link(&mut header(kind, mode, 0), path, to)?)
}

fn busybox(tar: &mut Tar, cache: &Cache) -> Result<()> {
    let program = busybox::program(cache)?;
    let list = command::run(Command::new(&program).arg("--list"))?;
    file(tar, "usr/bin/busybox", 0o755, &fs::read(&program)?)?;
    let mut applets: Vec<&str> = list.lines().filter(|a| *a != "busybox").collect();
    applets.sort_unstable();
    for applet in applets {
        let path = format!("usr/bin/{applet}");
        link(tar, tar::EntryType::Link, &path, "usr/bin/busybox")?;
    }
    Ok(())
}

fn compile(source: &Path) -> Result<Vec<u8>> {
    let to = std::env::temp_dir().join(format!("bed-c-{}", std::process::id()));
    let mut gcc = Command::new("gcc");
    command::run(
        gcc.args(["-Os", "-s", "-static", "-o"])
            .arg(&to)
            .arg(source),
    )?;
    let program = fs::read(&to).with_context(|| format!("read {}", to.display()))?;
    let _ = fs::remove_file(&to);
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_tar_is_where_its_last_file_ends() {
        let mut tar = tar::Builder::new(Vec::new());
        file(&mut tar, "a", 0o644, &[0; 600]).unwrap();
        let tar = tar.into_inner().unwrap();
        assert_eq!(end_of_entries(&tar).unwrap(), 3 * BLOCK);
        assert!(tar.len() > 3 * BLOCK);
    }

    #[test]
    fn archive_is_the_same_bytes_each_time() {
        let cache = Cache {
            root: PathBuf::from("/nonexistent"),
        };
        let inputs = Inputs {
            cache: &cache,
            peers: PathBuf::from("/nonexistent"),
        };
        let entries = [
            Entry::Dir {
                path: "a",
                mode: 0o1777,
            },
            Entry::File {
                path: "a/f",
                mode: 0o644,
                content: "text",
            },
            Entry::Link {
                path: "l",
                to: "a/f",
            },
        ];
        let first = archive(&inputs, &entries).unwrap();
        assert_eq!(first, archive(&inputs, &entries).unwrap());
        let names: Vec<String> = tar::Archive::new(&first[..])
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a/", "a/f", "l"]);
    }
}
