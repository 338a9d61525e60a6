//! Errors of scenarios, which list all problems with their lines.

use std::fmt;

use crate::input::ReadError;

/// The most problems that are printed; the others are counted.
const SHOWN: usize = 30;
/// The most characters of a line that are printed.
const MAX_LINE: usize = 100;

/// A line of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Its number from 1; 0 for no line.
    pub line: usize,
    /// Its text.
    pub text: String,
}

impl Position {
    /// The line of a byte in the text; past the end, the last line.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
        let breaks = before.iter().filter(|byte| **byte == b'\n').count();
        let line = breaks.min(text.lines().count().saturating_sub(1));
        let of = text.lines().nth(line).unwrap_or_default().trim();
        let mut shown: String = of.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
        if of.chars().nth(MAX_LINE).is_some() {
            shown.push('…');
        }
        Self { line: line + 1, text: shown }
    }
}

/// A mistake in a scenario.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line of the mistake.
    pub position: Position,
    /// The mistake, and what is allowed.
    pub message: String,
}

/// Why a scenario or its load could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has mistakes.
    #[error("{}", Listed(file, problems))]
    Wrong {
        /// The file's name.
        file: String,
        /// All mistakes in the order of lines.
        problems: Vec<Problem>,
    },
}

impl ScenarioError {
    /// An error with a scenario's problems, sorted.
    pub(super) fn wrong(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        let file = if file.is_empty() { "scenario" } else { file };
        Self::Wrong { file: file.into(), problems }
    }
}

struct Listed<'a>(&'a str, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(file, problems) = self;
        for (i, Problem { position, message }) in problems.iter().take(SHOWN).enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            match position.line {
                0 => write!(f, "{end}{file}: {message}")?,
                line => write!(f, "{end}{file}:{line}: {message}")?,
            }
            if !position.text.is_empty() {
                write!(f, "\n    {}", position.text)?;
            }
        }
        match problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
