//! Folders and archives, whole and damaged.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

type Seen = Vec<(String, bool, Option<Vec<u8>>)>;

fn read_all(path: &Path) -> (Seen, Result<bool, InputError>) {
    let mut seen = Vec::new();
    let result = read(path, &mut |document| {
        seen.push((document.source, document.named, document.text.ok()));
        true
    });
    (seen, result)
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.iter().map(|(name, _, _)| name.as_str()).collect()
}

#[test]
fn a_folder_is_walked_in_order() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("b")).unwrap();
    for name in ["c.json", "a.json", "b/y.json", "b/x.json", "notes.txt"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    std::fs::write(dir.path().join("b/z.json.gz"), gzip(b"{}")).unwrap();
    std::fs::write(dir.path().join("d.json.gz"), b"no gzip").unwrap();
    let (seen, result) = read_all(dir.path());
    assert!(result.unwrap());
    assert_eq!(
        names(&seen),
        ["a.json", "b/x.json", "b/y.json", "b/z.json.gz", "c.json", "d.json.gz"]
    );
    assert_eq!(seen[1].2.as_deref(), Some(&b"b/x.json"[..]));
    assert_eq!(seen[3].2.as_deref(), Some(&b"{}"[..]));
    // It does not decompress, and the others are none the worse.
    assert_eq!(seen[5].2, None);
    assert!(seen.iter().all(|(_, named, _)| !named));
}

#[test]
fn archives_give_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let packed = gzip(b"[2]");
    let files = [("t/one.json", &b"[1]"[..]), ("README", b"-"), ("t/two.json.gz", &packed)];
    for (name, bytes) in
        [("x.tar.gz", gzip(&tar(&files))), ("x.tgz", gzip(&tar(&files))), ("x.tar", tar(&files))]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let (seen, result) = read_all(&path);
        assert!(result.unwrap(), "{name}");
        assert_eq!(names(&seen), ["t/one.json", "t/two.json.gz"]);
        assert_eq!(seen[1].2.as_deref(), Some(&b"[2]"[..]));
    }
    let stopped = read(&dir.path().join("x.tar"), &mut |_| false);
    assert!(!stopped.unwrap());
}

#[test]
fn damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let noise: Vec<u8> =
        (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let whole = gzip(&tar(&[("a.json", &noise), ("b.json", &noise)]));
    for cut in [3, 100, whole.len() / 2, whole.len() - 600, whole.len() - 1] {
        let (_, result) = read_all(&write("cut.tar.gz", &whole[..cut]));
        let error = result.unwrap_err();
        assert!(matches!(error, InputError::Archive { .. }), "{cut}: {error}");
        assert!(error.to_string().contains("cut.tar.gz"), "{error}");
    }
    let mut flipped = whole;
    *flipped.last_mut().unwrap() ^= 1;
    let error = read_all(&write("crc.tar.gz", &flipped)).1.unwrap_err();
    assert!(matches!(error, InputError::Archive { .. }), "{error}");
    let error = read_all(&write("no.tar.gz", b"this is no archive")).1.unwrap_err();
    assert!(error.to_string().contains("it is not gzip"), "{error}");
    let error = read_all(&write("none.tar.gz", &gzip(&tar(&[("README", b"-")])))).1.unwrap_err();
    assert!(matches!(error, InputError::Empty { .. }), "{error}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(read_all(empty.path()).1, Err(InputError::Empty { .. })));
    assert!(matches!(read_all(Path::new("no-such/x.json")).1, Err(InputError::Io { .. })));
    let error = read_all(&write("x.csv", b"1,2")).1.unwrap_err();
    assert!(matches!(error, InputError::File(_)), "{error}");
}

#[test]
fn a_bound_is_a_bound() {
    let read = |left| {
        let mut all = Vec::new();
        Bounded { inner: io::repeat(1).take(100), left }.read_to_end(&mut all).map(|_| all.len())
    };
    assert_eq!(read(100).unwrap(), 100);
    assert!(read(99).is_err());
}
