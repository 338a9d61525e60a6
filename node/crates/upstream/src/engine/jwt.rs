//! The secret shared with an execution client, and the tokens signed with it.
//!
//! The engine port accepts HS256 tokens whose `iat` is within 60 s of its clock, so every request
//! gets a fresh one. The secret is wiped when dropped and appears in no output. Only the signing
//! library's short-lived copy of it is not wiped.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::hex;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

/// Bytes of a secret.
const SECRET_LEN: usize = 32;

/// Why a secret could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The file cannot be read.
    #[error(
        "cannot read the JWT secret from {path}: {source}; give the file that the execution \
         client's --authrpc.jwtsecret names"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file's permissions let others read it.
    #[error(
        "{path} can be read by others: run `chmod 600 {quoted}`; the execution client must run as the \
         same user, or have a copy of its own",
        path = .0.display(), quoted = quoted(.0)
    )]
    Permissions(PathBuf),
    /// Not 32 bytes in hexadecimal. The content is not repeated: it may be most of a secret.
    #[error(
        "a JWT secret is 64 hexadecimal digits (32 bytes), this one is {0} characters or has \
         others among them; make one with `openssl rand -hex 32`"
    )]
    Format(usize),
    /// The system clock is before 1970 or the library cannot sign.
    #[error("cannot make a JWT: {0}; check the system clock")]
    Token(String),
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// 32 secret bytes that Fragcast and the execution client share.
///
/// ```
/// use fragcast_upstream::engine::JwtSecret;
///
/// let secret = JwtSecret::from_hex(&"07".repeat(32))?;
/// assert_eq!(format!("{secret:?}"), "JwtSecret(…)");
/// assert!(JwtSecret::from_hex("07").is_err());
/// # Ok::<(), fragcast_upstream::engine::JwtError>(())
/// ```
#[derive(Clone)]
pub struct JwtSecret(Zeroizing<[u8; SECRET_LEN]>);

impl std::fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JwtSecret(…)")
    }
}

#[derive(Serialize)]
struct Claims {
    iat: u64,
}

impl JwtSecret {
    /// Reads the file that `--authrpc.jwtsecret` of the execution client names. Refuses one that
    /// others can read: whoever has the secret can make the client take any block.
    ///
    /// # Errors
    /// [`JwtError::Read`], [`JwtError::Permissions`] or [`JwtError::Format`].
    pub fn from_hex_file(path: impl AsRef<Path>) -> Result<Self, JwtError> {
        let path = path.as_ref();
        let failed = |source| JwtError::Read { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Of the file that is read, whatever the path names by then.
            let mode = file.metadata().map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(JwtError::Permissions(path.to_owned()));
            }
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(failed)?;
        Self::from_hex(&text)
    }

    /// Takes 64 hexadecimal digits, with or without `0x`, white space around them ignored.
    ///
    /// # Errors
    /// [`JwtError::Format`].
    pub fn from_hex(text: &str) -> Result<Self, JwtError> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        // The decoder would take a second `0x`.
        if digits.len() != 2 * SECRET_LEN || hex::decode_to_slice(digits, &mut *secret).is_err() {
            return Err(JwtError::Format(digits.chars().count()));
        }
        Ok(Self(secret))
    }

    /// A fresh token: `iat` is now.
    ///
    /// # Errors
    /// [`JwtError::Token`].
    pub fn token(&self) -> Result<String, JwtError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let iat = now.map_err(|error| JwtError::Token(error.to_string()))?.as_secs();
        // The default header says HS256.
        let key = EncodingKey::from_secret(&self.0[..]);
        jsonwebtoken::encode(&Header::default(), &Claims { iat }, &key)
            .map_err(|error| JwtError::Token(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn hexadecimal_in_all_usual_spellings() {
        for text in [HEX.to_owned(), format!("0x{HEX}\n"), format!(" {} \r\n", HEX.to_uppercase())]
        {
            let secret = JwtSecret::from_hex(&text).unwrap();
            assert_eq!(secret.0[..3], [0, 0x11, 0x22]);
        }
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for text in ["", "0x", &HEX[1..], &format!("{HEX}00"), &HEX.replace('f', "g"), "é"] {
            let error = JwtSecret::from_hex(text).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
            assert!(text.len() < 3 || !error.contains(&text[2..]), "{error}");
        }
        assert!(JwtSecret::from_hex(&format!("0x0x{}", &HEX[2..])).is_err());
    }

    fn private(path: &Path, mode: u32) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("it's a secret.hex");
        std::fs::write(&path, HEX).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660, 0o622] {
            private(&path, mode);
            let error = JwtSecret::from_hex_file(&path).unwrap_err();
            assert!(matches!(error, JwtError::Permissions(_)), "{mode:o}");
            let text = error.to_string();
            assert!(!text.contains(&HEX[2..10]), "{text}");
            let command = text.split('`').nth(1).unwrap();
            let ran = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(ran.success(), "{command}");
            JwtSecret::from_hex_file(&path).unwrap();
        }
        // Who can read only by a link is no exception.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        JwtSecret::from_hex_file(&link).unwrap();
        private(&path, 0o644);
        assert!(JwtSecret::from_hex_file(&link).is_err());
    }

    #[test]
    fn files_are_read_and_missing_ones_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwt.hex");
        let error = JwtSecret::from_hex_file(&path).unwrap_err().to_string();
        assert!(error.contains("jwt.hex") && error.contains("jwtsecret"), "{error}");
        std::fs::write(&path, format!("{HEX}\n")).unwrap();
        private(&path, 0o600);
        let secret = JwtSecret::from_hex_file(&path).unwrap();
        assert_eq!(secret.0[1], 0x11);
        assert_eq!(format!("{secret:?}"), "JwtSecret(…)");
    }
}
