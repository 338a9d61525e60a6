//! Key files: 64 hex digits in a file that nobody else may read.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use alloy_primitives::hex;
use ed25519_dalek::SigningKey;
use fragcast_shredder::GatewayKey;
use zeroize::Zeroizing;

/// Why a key could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file's permissions let others read it.
    #[error(
        "{path} can be read by others: run `chmod 600 {quoted}`",
        path = .0.display(), quoted = quoted(.0)
    )]
    Permissions(PathBuf),
    /// The file does not hold a key.
    #[error("{0} does not hold a key: 64 hex digits are expected")]
    Format(PathBuf),
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { action, path, source }
}

/// Writes a new file that only its owner may read or write; never overwrites one.
///
/// # Errors
/// [`KeyError::Io`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", path))
}

/// Reads 32 secret bytes from a file of 64 hex digits.
///
/// # Errors
/// [`KeyError`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut file = fs::File::open(path).map_err(io("read", path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Of the file that is read, whatever the path names by then.
        let mode = file.metadata().map_err(io("read", path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions(path.to_owned()));
        }
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(io("read", path))?;
    let bytes = hex::decode_to_array(text.trim()).map_err(|_| KeyError::Format(path.to_owned()))?;
    Ok(Zeroizing::new(bytes))
}

/// 32 bytes from the operating system.
///
/// # Panics
/// If the operating system has no randomness to give: no key may be made then.
pub fn random_secret() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).expect("randomness of the operating system");
    bytes
}

/// Makes an ed25519 key and writes it.
///
/// # Errors
/// [`KeyError::Io`].
pub fn create_ed25519(path: &Path) -> Result<SigningKey, KeyError> {
    let secret = random_secret();
    write_private(path, Zeroizing::new(hex::encode(*secret) + "\n").as_bytes())?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Makes a gateway's secp256k1 key and writes it.
///
/// # Errors
/// [`KeyError::Io`].
pub fn create_gateway(path: &Path) -> Result<GatewayKey, KeyError> {
    loop {
        let secret = random_secret();
        // All but 2^-127 of all 32-byte strings are keys.
        if let Ok(key) = GatewayKey::from_bytes(*secret) {
            write_private(path, Zeroizing::new(hex::encode(*secret) + "\n").as_bytes())?;
            return Ok(key);
        }
    }
}

/// Reads an ed25519 key.
///
/// # Errors
/// [`KeyError`].
pub fn read_ed25519(path: &Path) -> Result<SigningKey, KeyError> {
    Ok(SigningKey::from_bytes(&*read_secret(path)?))
}

/// Reads a gateway's key.
///
/// # Errors
/// [`KeyError`].
pub fn read_gateway(path: &Path) -> Result<GatewayKey, KeyError> {
    GatewayKey::from_bytes(*read_secret(path)?).map_err(|_| KeyError::Format(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_files_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let key = create_ed25519(&path).unwrap();
        assert_eq!(read_ed25519(&path).unwrap(), key);
        assert!(matches!(create_ed25519(&path), Err(KeyError::Io { .. })), "never overwritten");
        let gateway = dir.path().join("g.key");
        let made = create_gateway(&gateway).unwrap();
        assert_eq!(read_gateway(&gateway).unwrap().address(), made.address());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            for read in [|p: &Path| read_ed25519(p).map(drop), |p: &Path| read_gateway(p).map(drop)]
            {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
                let error = read(&path).unwrap_err();
                assert!(matches!(error, KeyError::Permissions(_)));
                let text = error.to_string();
                let command = text.split('`').nth(1).unwrap();
                let ran = std::process::Command::new("sh").args(["-c", command]).status();
                assert!(ran.unwrap().success(), "{command}");
                read(&path).unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
    }

    #[test]
    fn a_file_of_something_else_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write_private(&path, b"not a key").unwrap();
        let error = read_ed25519(&path).unwrap_err().to_string();
        assert!(error.contains("64 hex digits"), "{error}");
        assert!(!error.contains("not a key"), "what a key file holds is never printed");
    }
}
