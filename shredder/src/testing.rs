//! What tests of all crates need from the machine: recorded data, programs, and a way to say
//! that one of them is missing. Behind the feature `testing`, since the rest of the crate is
//! pure and this is not.
//!
//! A test whose prerequisite is missing calls [`skip`] and returns. CI sets `FRAGCAST_NO_SKIP`,
//! under which that is a failure: nothing is skipped unnoticed. One that needs a right that not
//! every machine gives calls [`refused`].

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The environment variable under which a skipped test fails. Empty counts as unset.
pub const NO_SKIP: &str = "FRAGCAST_NO_SKIP";

/// The environment variable that names the folder of recorded data.
pub const DATA: &str = "FRAGCAST_DATA";

/// Prints `SKIPPED:` and the reason, past the harness, which captures only what `println!` writes.
///
/// # Panics
/// If [`NO_SKIP`] is set in the environment and not empty.
pub fn skip(why: impl Display) {
    let forbidden = forbids_skips(std::env::var_os(NO_SKIP).as_deref());
    assert!(!forbidden, "{NO_SKIP} is set, and this would skip: {why}");
    let _ = writeln!(std::io::stdout(), "SKIPPED: {why}");
}

/// Prints `SKIPPED:` and the reason, for a test that this machine does not let run, whatever is
/// installed: a right that it does not give. That is no failure anywhere.
pub fn refused(why: impl Display) {
    let _ = writeln!(std::io::stdout(), "SKIPPED: {why}");
}

fn forbids_skips(no_skip: Option<&OsStr>) -> bool {
    no_skip.is_some_and(|value| !value.is_empty())
}

/// A file or folder of the recorded data, which is not part of the repository: in the folder
/// that [`DATA`] names, else in `../shared/data` beside the workspace.
///
/// `None`, after [`skip`], if it is not there.
pub fn data(path: &str) -> Option<PathBuf> {
    const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let root = std::env::var_os(DATA).unwrap_or_else(|| DEFAULT.into());
    let path = Path::new(&root).join(path);
    let there = path.exists();
    if !there {
        skip(format_args!("no {}; set {DATA} to the folder of recorded data", path.display()));
    }
    there.then_some(path)
}

/// Whether `program` can be run and succeeds: `has("node", &["--version"])`,
/// `has("python3", &["-c", "import web3"])`.
pub fn has(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// How often npm is run until it succeeds: its registry may be away for a moment.
const NPM_TRIES: usize = 3;

/// Installs the packages that `folder`'s `package-lock.json` lists, in up to three tries.
///
/// `false`, after [`skip`] with what npm complained of, if there is no Node.js or npm, or npm cannot
/// reach its registry.
pub fn npm_install(folder: &Path) -> bool {
    if !has("node", &["--version"]) || !has("npm", &["--version"]) {
        skip("Node.js and npm are needed");
        return false;
    }
    let mut complaint = String::new();
    for _ in 0..NPM_TRIES {
        let installed = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .args(["--fetch-retries", "5", "--prefer-offline"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .output();
        complaint = match installed {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
    }
    skip(format_args!("npm cannot install the packages of package-lock.json: {complaint}"));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_allows_skips() {
        let forbids = |value: &'static str| forbids_skips(Some(value.as_ref()));
        assert!(forbids("1") && forbids("0"));
        assert!(!forbids("") && !forbids_skips(None));
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(has("cargo", &["--version"]));
        assert!(!has("cargo", &["no-such-subcommand-of-cargo"]));
        assert!(!has("no-such-program-anywhere", &[]));
    }
}
