//! Enums whose variants have names in configuration files, flags and JSON.

use strum::VariantArray;

/// A text that names no variant of an enum.
///
/// An enum that derives strum's `EnumString`, `IntoStaticStr` and `VariantArray` uses it with
/// `#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Self>)]`.
///
/// ```
/// use fragcast_shredder::Dialect;
///
/// let error = "v1".parse::<Dialect>().unwrap_err();
/// assert_eq!(error.to_string(), "`v1` is none of v0, v0-blob");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of {}", names.join(", "))]
pub struct UnknownName {
    /// The text.
    pub text: String,
    /// The names that there are.
    pub names: Vec<&'static str>,
}

impl UnknownName {
    /// The error for a text that is none of the names of `E`.
    pub fn of<E: VariantArray + Copy + Into<&'static str>>(text: &str) -> Self {
        let names = E::VARIANTS.iter().map(|one| (*one).into()).collect();
        Self { text: text.to_owned(), names }
    }
}
