//! Blocks from files: recorded from a real chain, or those of ethereum/tests.
//!
//! They carry what executing them must arrive at. [`input`] reads files, folders and archives;
//! [`recorded`] and [`ethereum_tests`] understand what is in them.

pub mod ethereum_tests;
pub mod input;
pub mod recorded;

pub use ethereum_tests::EthereumTest;
pub use recorded::{RecordedBlock, RecordedError};
