//! Whole networks on one machine, and the blocks that are sent through them: `fragcast devnet` and
//! `fragcast replay`.

pub mod devnet;
pub mod fixtures;
#[doc(hidden)]
pub mod fuzzing;
pub mod local;
pub mod replay;

/// Parses a share of loss.
pub(crate) fn loss(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(loss) if (0.0..=0.3).contains(&loss) => Ok(loss),
        _ => Err("a share from 0 to 0.3, such as 0.05, is expected".into()),
    }
}
