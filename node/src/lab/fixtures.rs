//! Blocks from files: recorded from a real chain, or those of ethereum/tests.
//!
//! They carry the expected results of execution. [`input`] reads files, folders and archives;
//! [`recorded`] and [`ethereum_tests`] parse their contents.

pub mod ethereum_tests;
pub mod input;
pub mod recorded;

pub use ethereum_tests::EthereumTest;
pub use recorded::{RecordedBlock, RecordedError};
