//! The contents of a document: a recorded block, a file of ethereum/tests, or neither.

use std::path::Path;

use super::report::{Ignored, Row};
use crate::lab::fixtures::ethereum_tests::{Tests, TestsError};
use crate::lab::fixtures::input::Document;
use crate::lab::fixtures::recorded::{RecordedBlock, RecordedError};

/// The contents of a document.
#[derive(Debug)]
pub enum Content {
    /// A recorded block.
    Block(Box<RecordedBlock>),
    /// Tests.
    Tests(Tests),
    /// Damaged: it counts as a failed block.
    Damaged(Box<Row>),
    /// Something else, in a folder or an archive.
    Other(Ignored),
}

/// Determines the contents of a document.
///
/// # Errors
/// The document was named by itself and is neither a recorded block nor tests. One in a folder or
/// an archive is [`Content::Damaged`] or [`Content::Other`] instead.
pub fn open(document: Document) -> anyhow::Result<Content> {
    let Document { source, named, text } = document;
    let path = Path::new(&source);
    let damaged = |error: anyhow::Error| {
        if named {
            return Err(error);
        }
        let mut row = Row::new(&source, "damaged files");
        row.reason = Some(error.to_string());
        Ok(Content::Damaged(Box::new(row)))
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return damaged(error.into()),
    };
    match RecordedBlock::parse(path, &text) {
        Ok(block) => return Ok(Content::Block(Box::new(block))),
        Err(RecordedError::Kind { .. }) => {}
        Err(error) => return damaged(error.into()),
    }
    match Tests::parse(path, &text) {
        Ok(tests) => Ok(Content::Tests(tests)),
        Err(TestsError::Kind { .. }) if named => anyhow::bail!(
            "{source} is neither a recorded block nor a file of ethereum/tests; give a .json or \
             .json.gz file, a folder or a .tar.gz of such"
        ),
        Err(error @ TestsError::Kind { .. }) => {
            Ok(Content::Other(Ignored { source, reason: error.to_string() }))
        }
        Err(error) => damaged(error.into()),
    }
}
