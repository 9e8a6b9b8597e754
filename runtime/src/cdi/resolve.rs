//! From names to what they stand for.

use super::CdiError;
use super::file::{self, Edits, FileError, Specification};
use std::path::{Path, PathBuf};

/// What the devices of these names are made of, in order: a file's common part once, before the
/// first of its devices. Files of a later directory take the place of an earlier one's.
///
/// # Errors
/// When a device is unknown, in two files of one directory, or asks for what can't be done.
pub fn resolve(dirs: &[PathBuf], names: &[String]) -> Result<Vec<Edits>, CdiError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let dirs: Vec<Directory> = dirs.iter().map(|dir| Directory::read(dir)).collect();
    let mut used: Vec<&Path> = Vec::new();
    let mut all = Vec::new();
    for name in names {
        let (path, found, edits) = find(&dirs, name)?;
        let common = (!used.contains(&path)).then_some(&found.container_edits);
        used.push(path);
        for edits in common.into_iter().chain([edits]) {
            if let Some(what) = edits.unsupported() {
                let name = name.clone();
                return Err(CdiError::Unsupported { name, what });
            }
            all.push(edits.clone());
        }
    }
    Ok(all)
}

struct Directory {
    path: PathBuf,
    good: Vec<(PathBuf, Specification)>,
    bad: Vec<FileError>,
}

impl Directory {
    /// A directory that isn't there is one without files.
    fn read(path: &Path) -> Directory {
        let mut directory = Directory {
            path: path.to_owned(),
            good: Vec::new(),
            bad: Vec::new(),
        };
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json" || e == "yaml"));
        paths.sort();
        for path in paths {
            match file::read(&path) {
                Ok(read) => directory.good.push((path, read)),
                Err(error) => directory.bad.push(error),
            }
        }
        directory
    }
}

type Found<'a> = (&'a Path, &'a Specification, &'a Edits);

fn find<'a>(dirs: &'a [Directory], name: &str) -> Result<Found<'a>, CdiError> {
    let (kind, device) = name
        .split_once('=')
        .filter(|(kind, device)| kind.contains('/') && !device.is_empty())
        .ok_or_else(|| CdiError::Name {
            name: name.to_owned(),
        })?;
    for dir in dirs.iter().rev() {
        let mut found = dir.good.iter().filter_map(|(path, read)| {
            let device = read.devices.iter().find(|d| d.name == device);
            let edits = device.filter(|_| read.kind == kind)?;
            Some((path.as_path(), read, &edits.container_edits))
        });
        if let Some(first) = found.next() {
            return match found.next() {
                None => Ok(first),
                Some(second) => Err(CdiError::Conflict {
                    name: name.to_owned(),
                    first: first.0.to_owned(),
                    second: second.0.to_owned(),
                }),
            };
        }
    }
    Err(missing(dirs, name))
}

/// A file that could not be read may be why.
fn missing(dirs: &[Directory], name: &str) -> CdiError {
    let looked: Vec<_> = dirs.iter().map(|d| d.path.display().to_string()).collect();
    let name = name.to_owned();
    match dirs.iter().flat_map(|d| &d.bad).next() {
        Some(FileError::Parse { path, reason }) => CdiError::Broken {
            name,
            source: FileError::Parse {
                path: path.clone(),
                reason: reason.clone(),
            },
        },
        Some(FileError::Read { path, source }) => CdiError::Broken {
            name,
            source: FileError::Read {
                path: path.clone(),
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
        },
        None => CdiError::Unknown {
            name,
            looked: looked.join(", "),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dirs(PathBuf);

    impl Dirs {
        fn new(test: &str) -> Dirs {
            let name = format!("cdi-{test}-{}", std::process::id());
            let dirs = Dirs(std::env::temp_dir().join(name));
            for dir in dirs.all() {
                std::fs::create_dir_all(dir).unwrap();
            }
            dirs
        }

        fn all(&self) -> [PathBuf; 2] {
            [self.0.join("etc"), self.0.join("run")]
        }

        fn write(&self, path: &str, device: &str, env: &str) {
            let text = format!(
                r#"{{"cdiVersion":"0.6.0","kind":"v.com/c","containerEdits":{{"env":["ALL={env}"]}},
                    "devices":[{{"name":"{device}","containerEdits":{{"env":["ONE={env}"]}}}}]}}"#
            );
            std::fs::write(self.0.join(path), text).unwrap();
        }

        fn env(&self, names: &[&str]) -> Result<Vec<String>, CdiError> {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let edits = resolve(&self.all(), &names)?;
            Ok(edits.into_iter().flat_map(|e| e.env).collect())
        }
    }

    impl Drop for Dirs {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn common_part_of_a_file_comes_once_and_first() {
        let dirs = Dirs::new("common");
        dirs.write("etc/a.json", "a", "a");
        dirs.write("etc/b.json", "b", "b");
        let env = dirs.env(&["v.com/c=a", "v.com/c=b", "v.com/c=a"]).unwrap();
        assert_eq!(env, ["ALL=a", "ONE=a", "ALL=b", "ONE=b", "ONE=a"]);
    }

    #[test]
    fn later_directory_wins_and_one_directory_must_agree() {
        let dirs = Dirs::new("order");
        dirs.write("etc/a.json", "a", "etc");
        dirs.write("run/a.json", "a", "run");
        assert_eq!(dirs.env(&["v.com/c=a"]).unwrap(), ["ALL=run", "ONE=run"]);
        dirs.write("run/b.json", "a", "again");
        let error = dirs.env(&["v.com/c=a"]).unwrap_err();
        assert!(matches!(error, CdiError::Conflict { .. }), "{error}");
    }

    #[test]
    fn unknown_device_names_where_was_looked_or_the_broken_file() {
        let dirs = Dirs::new("unknown");
        let error = dirs.env(&["v.com/c=a"]).unwrap_err().to_string();
        assert!(error.contains("/etc") && error.contains("/run"), "{error}");
        std::fs::write(dirs.0.join("run/bad.json"), "{").unwrap();
        let error = dirs.env(&["v.com/c=a"]).unwrap_err();
        assert!(matches!(error, CdiError::Broken { .. }), "{error}");
        let error = dirs.env(&["nonsense"]).unwrap_err();
        assert!(matches!(error, CdiError::Name { .. }), "{error}");
    }
}
