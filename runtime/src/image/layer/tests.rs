//! Ordinary and hostile archives on a real directory.

use super::{ExtractError, Extracted, extract};
use crate::image::testing::TempDir;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use tar::{Builder, EntryType, Header};

/// Archives are made by another crate than the one that reads them.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        // Not root's tests: what is extracted belongs to whoever runs them.
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_mtime(1_000_000);
        header.set_size(0);
        header
    }

    fn add(mut self, path: &str, mut header: Header, data: &[u8]) -> Self {
        header.set_size(data.len() as u64);
        raw_name(&mut header, path);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        let header = Self::header(EntryType::Regular, 0o644);
        self.add(path, header, data)
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        let header = Self::header(EntryType::Directory, mode);
        self.add(path, header, b"")
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777);
        header.set_link_name_literal(target).unwrap();
        self.add(path, header, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The crate refuses `..` in names; an attacker does not ask it.
fn raw_name(header: &mut Header, path: &str) {
    let name = &mut header.as_old_mut().name;
    name.fill(0);
    name[..path.len()].copy_from_slice(path.as_bytes());
}

fn unpack(archive: Archive) -> (TempDir, Result<Extracted, ExtractError>) {
    let dir = TempDir::new();
    let root = dir.path().join("diff");
    fs::create_dir(&root).unwrap();
    let extracted = extract(&archive.bytes()[..], &root);
    (dir, extracted)
}

#[test]
fn layer_has_its_files_modes_and_times_when_extracted() {
    let (dir, extracted) = unpack(
        Archive::new()
            .dir("./", 0o750)
            .dir("bin/", 0o511)
            .file("bin/sh", b"#!")
            .symlink("bin/ash", "sh")
            .link(EntryType::Link, "bin/dash", "bin/sh"),
    );
    let extracted = extracted.unwrap();
    let root = dir.path().join("diff");
    assert_eq!(extracted.root_dir.unwrap().mode, 0o750);
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(
        fs::metadata(root.join("bin")).unwrap().mode() & 0o7777,
        0o511
    );
    let sh = fs::metadata(root.join("bin/sh")).unwrap();
    assert_eq!(
        (sh.mode() & 0o7777, sh.mtime(), sh.nlink()),
        (0o644, 1_000_000, 2)
    );
    assert_eq!(
        fs::read_link(root.join("bin/ash")).unwrap().to_str(),
        Some("sh")
    );
    // Root, bin, sh, ash; the hard link is no inode of its own.
    assert_eq!(extracted.inodes, 4);
    assert!(extracted.implicit.is_empty());
}

#[test]
fn directory_keeps_its_time_when_members_follow_it() {
    let (dir, extracted) = unpack(Archive::new().dir("d/", 0o755).file("d/f", b"x"));
    extracted.unwrap();
    let d = fs::metadata(dir.path().join("diff/d")).unwrap();
    assert_eq!(d.mtime(), 1_000_000);
}

#[test]
fn setuid_survives_extraction() {
    let header = Archive::header(EntryType::Regular, 0o4755);
    let (dir, extracted) = unpack(Archive::new().add("su", header, b"x"));
    extracted.unwrap();
    let mode = fs::metadata(dir.path().join("diff/su")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o4755);
}

#[test]
fn member_is_refused_when_its_name_climbs() {
    for name in ["../evil", "a/../../evil", ".."] {
        let (dir, extracted) = unpack(Archive::new().file(name, b"x"));
        assert!(
            matches!(extracted, Err(ExtractError::Outside { .. })),
            "{name}"
        );
        assert!(!dir.path().join("evil").exists());
    }
}

#[test]
fn absolute_member_lands_inside() {
    let (dir, extracted) = unpack(Archive::new().file("/etc/evil-lighter", b"x"));
    extracted.unwrap();
    assert!(dir.path().join("diff/etc/evil-lighter").exists());
    assert!(!fs::exists("/etc/evil-lighter").unwrap());
}

#[test]
fn cve_2021_32760_and_2025_47290_member_through_a_symlink_stays_inside() {
    let outside = TempDir::new();
    let target = outside.path().to_str().unwrap();
    let (dir, extracted) = unpack(
        Archive::new()
            .dir(target.trim_start_matches('/'), 0o755)
            .symlink("link", target)
            .file("link/evil", b"x")
            .symlink("up", "../../../../../../..")
            .file("up/evil", b"x"),
    );
    extracted.unwrap();
    assert!(!outside.path().join("evil").exists());
    assert!(!dir.path().join("evil").exists());
    assert!(dir.path().join("diff/evil").exists());
}

#[test]
fn file_replaces_a_symlink_and_does_not_write_through_it() {
    let outside = TempDir::new();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"good").unwrap();
    let (dir, extracted) = unpack(
        Archive::new()
            .symlink("f", victim.to_str().unwrap())
            .file("f", b"evil"),
    );
    extracted.unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"good");
    assert_eq!(fs::read(dir.path().join("diff/f")).unwrap(), b"evil");
}

#[test]
fn hard_link_to_outside_is_refused() {
    let outside = TempDir::new();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"good").unwrap();
    let climb = format!("../../../../../../..{}", victim.display());
    for target in [victim.to_str().unwrap(), &climb] {
        let (_dir, extracted) = unpack(Archive::new().link(EntryType::Link, "l", target));
        assert!(extracted.is_err(), "{target}");
    }
    assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
}

#[test]
fn hard_link_through_a_symlink_stays_inside() {
    let outside = TempDir::new();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"good").unwrap();
    let (_dir, extracted) = unpack(
        Archive::new()
            .symlink("s", outside.path().to_str().unwrap())
            .link(EntryType::Link, "l", "s/victim"),
    );
    assert!(matches!(extracted, Err(ExtractError::DanglingLink { .. })));
    assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
}

#[test]
fn whiteout_becomes_a_device_of_number_zero() {
    let (dir, extracted) = unpack(Archive::new().dir("d/", 0o755).file("d/.wh.gone", b""));
    extracted.unwrap();
    let gone = fs::symlink_metadata(dir.path().join("diff/d/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
}

#[test]
fn whiteout_hides_nothing_of_its_own_layer() {
    let (dir, extracted) = unpack(
        Archive::new()
            .file("before", b"x")
            .file(".wh.before", b"")
            .file(".wh.after", b"")
            .file("after", b"x"),
    );
    extracted.unwrap();
    for name in ["before", "after"] {
        assert_eq!(fs::read(dir.path().join("diff").join(name)).unwrap(), b"x");
    }
}

#[test]
fn whiteout_through_a_symlink_stays_inside() {
    let outside = TempDir::new();
    fs::write(outside.path().join("victim"), b"good").unwrap();
    let (_dir, extracted) = unpack(
        Archive::new()
            .symlink("s", outside.path().to_str().unwrap())
            .file("s/.wh.victim", b""),
    );
    assert!(extracted.is_err());
    assert!(outside.path().join("victim").exists());
}

#[test]
fn whiteout_without_a_real_name_is_refused() {
    for name in [".wh.", ".wh..", ".wh..."] {
        let (_dir, extracted) = unpack(Archive::new().file(name, b""));
        assert!(
            matches!(extracted, Err(ExtractError::Outside { .. })),
            "{name}"
        );
    }
}

#[test]
#[ignore = "needs root: trusted.* attributes"]
fn opaque_whiteout_marks_its_directory_for_overlay() {
    let (dir, extracted) = unpack(
        Archive::new()
            .dir("d/", 0o755)
            .file("d/.wh..wh..opq", b"")
            .file(".wh.e", b"")
            .dir("e/", 0o755),
    );
    extracted.unwrap();
    for name in ["d", "e"] {
        let mut value = [0; 8];
        let path = dir.path().join("diff").join(name);
        let n = rustix::fs::getxattr(&path, "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..n], b"y", "{name}");
    }
}

#[test]
#[ignore = "needs root: chown and mknod"]
fn owners_devices_and_capabilities_are_kept() {
    let mut owned = Archive::header(EntryType::Regular, 0o4755);
    owned.set_uid(1234);
    owned.set_gid(5678);
    let mut device = Archive::header(EntryType::Char, 0o666);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    let mut archive = Archive::new();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let pax = [
        ("SCHILY.xattr.security.capability", &capability[..]),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    archive.0.append_pax_extensions(pax).unwrap();
    let archive = archive.add("su", owned, b"x").add("null", device, b"").add(
        "pipe",
        Archive::header(EntryType::Fifo, 0o600),
        b"",
    );
    let (dir, extracted) = unpack(archive);
    extracted.unwrap();
    let root = dir.path().join("diff");
    let su = fs::metadata(root.join("su")).unwrap();
    assert_eq!(
        (su.uid(), su.gid(), su.mode() & 0o7777),
        (1234, 5678, 0o4755)
    );
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(root.join("su"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..n], capability);
    let redirect = rustix::fs::getxattr(root.join("su"), "trusted.overlay.redirect", &mut value);
    assert_eq!(redirect, Err(rustix::io::Errno::NODATA));
    assert_eq!(
        fs::metadata(root.join("null")).unwrap().rdev(),
        rustix::fs::makedev(1, 3)
    );
    assert!(
        fs::metadata(root.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn parents_that_nobody_spoke_of_are_reported() {
    let (_dir, extracted) = unpack(
        Archive::new()
            .file("a/b/c", b"x")
            .dir("a/", 0o755)
            .file("d/e", b"x"),
    );
    let implicit = extracted.unwrap().implicit;
    assert_eq!(implicit, [b"a/b".to_vec(), b"d".to_vec()]);
}

#[test]
fn sparse_file_costs_only_its_data() {
    let mut header = Archive::header(EntryType::GNUSparse, 0o644);
    {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 40);
        gnu.sparse[0].set_offset(1 << 39);
        gnu.sparse[0].set_length(4);
    }
    let mut archive = Archive::new().add("big", header, b"data").0;
    archive.finish().unwrap();
    let (dir, extracted) = unpack(Archive(archive));
    assert!(extracted.unwrap().bytes < 100 << 10);
    let big = fs::metadata(dir.path().join("diff/big")).unwrap();
    assert_eq!(big.len(), 1 << 40);
    assert!(big.blocks() < 100);
}

#[test]
fn cve_2025_58183_map_of_too_many_runs_is_refused() {
    for map in [b"4294967296\n".to_vec(), vec![b'1'; 1 << 20]] {
        let mut archive = Archive::new();
        let pax = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"2097152"),
        ];
        archive.0.append_pax_extensions(pax).unwrap();
        let mut data = map;
        data.resize(data.len().next_multiple_of(512), b'0');
        let (_dir, extracted) = unpack(archive.file("GNUSparseFile.0/real", &data));
        let error = extracted.unwrap_err().to_string();
        assert!(error.contains("sparse map"), "{error}");
    }
}

#[test]
fn pax_sparse_file_is_read_by_its_map_before_the_data() {
    let mut data = b"1\n1048576\n4\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"data");
    let mut archive = Archive::new();
    let pax = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"2097152"),
    ];
    archive.0.append_pax_extensions(pax).unwrap();
    let (dir, extracted) = unpack(archive.file("GNUSparseFile.0/real", &data));
    extracted.unwrap();
    let content = fs::read(dir.path().join("diff/real")).unwrap();
    assert_eq!(content.len(), 2 << 20);
    assert_eq!(&content[1 << 20..(1 << 20) + 4], b"data");
}

#[test]
fn long_zeros_take_no_disk() {
    let (dir, extracted) = unpack(Archive::new().file("zeros", &vec![0; 1 << 20]));
    extracted.unwrap();
    let zeros = fs::metadata(dir.path().join("diff/zeros")).unwrap();
    assert_eq!((zeros.len(), zeros.blocks()), (1 << 20, 0));
}

#[test]
fn long_names_are_read_from_both_formats() {
    let name = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let mut archive = Archive::new();
    let header = Archive::header(EntryType::Regular, 0o644);
    archive
        .0
        .append_data(&mut header.clone(), &name, &b""[..])
        .unwrap();
    archive
        .0
        .append_pax_extensions([("path", &b"pax"[..])])
        .unwrap();
    let (dir, extracted) = unpack(archive.file("short", b"y"));
    extracted.unwrap();
    assert!(dir.path().join("diff").join(name).exists());
    assert_eq!(fs::read(dir.path().join("diff/pax")).unwrap(), b"y");
}

#[test]
fn archive_is_refused_when_cut_or_damaged() {
    let whole = Archive::new().file("f", &[7; 2000]).bytes();
    let dir = TempDir::new();
    for end in [100, 600, 2500] {
        let extracted = extract(&whole[..end], dir.path());
        assert!(matches!(extracted, Err(ExtractError::Tar(_))), "{end}");
    }
    let mut damaged = whole;
    damaged[0] = b'g';
    assert!(matches!(
        extract(&damaged[..], dir.path()),
        Err(ExtractError::Tar(_))
    ));
}

#[test]
fn endless_name_is_refused_before_it_is_read() {
    let mut header = Archive::header(EntryType::GNULongName, 0);
    header.set_size(1 << 40);
    header.set_cksum();
    let dir = TempDir::new();
    let extracted = extract(&header.as_bytes()[..], dir.path());
    let error = extracted.unwrap_err().to_string();
    assert!(error.contains("1 MiB"), "{error}");
}
