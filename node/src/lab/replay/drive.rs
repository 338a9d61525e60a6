//! Runs one case: the gateway executes each block to make its Seal, followers give verdicts.
//!
//! The gateway has a state source of its own and tells followers its results only in the messages.
//! A valid block passes only if every follower verified it and computed the hash of the *file*. The
//! gateway does not execute an invalid block: its messages repeat its header, and it passes only if
//! every follower rejected it, or if it could not be cut; `unverified` is never enough.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::B256;
use fragcast_execution::builder;
use fragcast_execution::builder::Built;
use fragcast_execution::exec::{BlockError, Parent, SealedBlock, StateSource, Unverified, Verdict};
use fragcast_execution::state::SourceError;
use fragcast_shredder::{Dialect, Message};

use super::case::{Case, Parts, Planned, Start};
use super::report::{Outcome, Row};
use crate::lab::fixtures::ethereum_tests::Expected;

/// A follower's result for a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The hash that it computed, if any.
    pub hash: Option<B256>,
    /// Its verdict.
    pub verdict: Verdict,
}

/// Followers: they receive blocks as messages and execute them.
pub trait Followers {
    /// Begins a case: sets up its chain and a state source for each follower.
    ///
    /// # Errors
    /// The followers could not be set up; the case fails.
    fn begin(&mut self, case: &Case) -> anyhow::Result<()>;

    /// Delivers a block to all followers and waits for a result from each.
    ///
    /// # Errors
    /// Messages did not arrive; the block fails.
    fn deliver(
        &mut self,
        messages: Vec<Message>,
        withdrawals: Option<&[Withdrawal]>,
    ) -> anyhow::Result<Vec<Heard>>;
}

/// How blocks are cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Transactions of a frag.
    pub txs_per_frag: usize,
    /// Dialect of the messages.
    pub dialect: Dialect,
}

/// The block with this hash as a parent.
///
/// # Errors
/// It is not known, or the source failed.
pub fn parent(
    known: &HashMap<B256, SealedBlock>,
    source: &Arc<dyn StateSource>,
    hash: B256,
) -> Result<Parent, BlockError> {
    if let Some(block) = known.get(&hash) {
        return Ok(block.as_parent());
    }
    match source.at(hash) {
        Ok(Some(anchor)) => Ok(anchor.into()),
        Ok(None) => Err(Unverified::Parent(hash).into()),
        Err(error) => Err(error.into()),
    }
}

/// Replays a case. A row for each of its blocks.
///
/// # Errors
/// The gateway's own source failed.
pub fn drive(
    case: &Case,
    followers: &mut dyn Followers,
    cut: Cut,
) -> Result<Vec<Row>, SourceError> {
    let mut gateway = Gateway { case, cut, source: case.start.source()?, known: HashMap::new() };
    let ready = followers.begin(case).map_err(|e| format!("the followers did not start: {e}"));
    let mut rows = Vec::with_capacity(case.blocks.len());
    for block in &case.blocks {
        let mut row = Row::new(&case.source, &case.group);
        row.number = block.number;
        match &ready {
            Ok(()) => gateway.replay(block, followers, &mut row),
            Err(reason) => row.reason = Some(reason.clone()),
        }
        rows.push(row);
    }
    if let Err(reason) = gateway.check_end() {
        // It must count: the last block that passed did not come to what the file says.
        let at = rows.iter().rposition(|row| row.outcome == Outcome::Passed);
        let at = at.unwrap_or_else(|| {
            rows.push(Row::new(&case.source, &case.group));
            rows.len() - 1
        });
        rows[at].outcome = Outcome::Failed;
        rows[at].reason = Some(reason.to_string());
    }
    Ok(rows)
}

/// Why the final state is another one than the file says.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error("lastblockhash {0} is none of the blocks executed")]
    Last(B256),
    #[error("postStateHash is not the state root of the last block")]
    Root,
    #[error("postState has the root {expected}, the last block {root}")]
    State { expected: B256, root: B256 },
    #[error(transparent)]
    Source(#[from] SourceError),
}

struct Gateway<'a> {
    case: &'a Case,
    cut: Cut,
    source: Arc<dyn StateSource>,
    /// Executed blocks of the case; side chains build on any of them.
    known: HashMap<B256, SealedBlock>,
}

impl Gateway<'_> {
    fn replay(&mut self, block: &Planned, followers: &mut dyn Followers, row: &mut Row) {
        match &block.expected {
            Expected::Valid(Ok(hash)) => {
                row.expected_hash = Some(*hash);
                match &block.parts {
                    Ok(parts) => self.valid(parts, *hash, followers, row),
                    Err(reason) => {
                        row.verdict = "refused";
                        row.reason = Some(reason.to_string());
                    }
                }
            }
            Expected::Valid(Err(reason)) => row.reason = Some(reason.to_string()),
            Expected::Invalid(why) => {
                row.valid = false;
                match &block.parts {
                    Ok(parts) => self.invalid(parts, why, followers, row),
                    Err(reason) => {
                        row.verdict = "refused";
                        row.outcome = Outcome::Passed;
                        row.reason = Some(reason.to_string());
                    }
                }
            }
        }
    }

    fn build(&self, parts: &Parts) -> Result<Built, BlockError> {
        let chunks = builder::chunks(&parts.txs, self.cut.txs_per_frag);
        let parent = parent(&self.known, &self.source, parts.env.parent_hash)?;
        let (spec, withdrawals) = (&self.case.spec, parts.withdrawals.clone());
        let dialect = self.cut.dialect;
        builder::build(spec, &parts.env, parent, &self.source, withdrawals, &chunks, dialect)
    }

    fn valid(&mut self, parts: &Parts, hash: B256, followers: &mut dyn Followers, row: &mut Row) {
        let begin = Instant::now();
        let built = match self.build(parts) {
            Ok(built) => built,
            Err(error) => {
                let verdict = Verdict::from(error);
                row.verdict = verdict.name();
                row.reason = verdict.reason();
                return;
            }
        };
        let header = &built.sealed.snapshot.header;
        if matches!(self.case.start, Start::Witness(..)) {
            // Tests burn gas without working for it.
            (row.gas, row.took) = (header.gas_used, begin.elapsed());
        }
        row.withdrawals = parts.withdrawals.as_ref().map_or(0, Vec::len);
        row.computed_hash = Some(built.sealed.hash());
        if built.sealed.hash() != hash {
            row.verdict = "rejected";
            row.reason = Some(difference(parts.header.as_ref(), header, hash));
            return;
        }
        let heard = match followers.deliver(built.messages, parts.withdrawals.as_deref()) {
            Ok(heard) => heard,
            Err(error) => {
                row.verdict = "missing";
                row.computed_hash = None;
                row.reason = Some(error.to_string());
                return;
            }
        };
        self.known.insert(hash, built.sealed);
        let wrong =
            heard.iter().position(|h| h.verdict != Verdict::Verified || h.hash != Some(hash));
        match (wrong, heard.first()) {
            (None, Some(first)) => {
                row.computed_hash = first.hash;
                row.verdict = first.verdict.name();
                row.outcome = Outcome::Passed;
            }
            (Some(node), _) => {
                let heard = &heard[node];
                row.computed_hash = heard.hash;
                row.verdict = heard.verdict.name();
                let reason = heard.verdict.reason().unwrap_or_else(|| "another hash".to_owned());
                row.reason = Some(format!("on node {node}: {reason}"));
            }
            (None, None) => row.reason = Some("there is no follower".into()),
        }
    }

    fn invalid(&self, parts: &Parts, why: &str, followers: &mut dyn Followers, row: &mut Row) {
        let Some(header) = &parts.header else {
            row.reason = Some("an invalid block without a header".into());
            return;
        };
        match parent(&self.known, &self.source, parts.env.parent_hash) {
            Ok(_) => {}
            Err(BlockError::Unverified(Unverified::Parent(hash))) => {
                row.verdict = "refused";
                row.outcome = Outcome::Passed;
                row.reason = Some(format!("its parent {hash} is no valid block of the test"));
                return;
            }
            Err(error) => {
                row.reason = Some(error.to_string());
                return;
            }
        }
        let chunks = builder::chunks(&parts.txs, self.cut.txs_per_frag);
        let hash = header.hash_slow();
        let dialect = self.cut.dialect;
        let messages = builder::stated(&parts.env, header, hash, &chunks, &parts.blob_gas, dialect);
        match followers.deliver(messages, parts.withdrawals.as_deref()) {
            Err(error) => {
                row.verdict = "missing";
                row.reason = Some(error.to_string());
            }
            Ok(heard) => {
                let not = heard.iter().find(|h| !matches!(h.verdict, Verdict::Rejected(_)));
                let Some(shown) = not.or(heard.first()) else {
                    row.reason = Some("there is no follower".into());
                    return;
                };
                row.verdict = shown.verdict.name();
                row.computed_hash = shown.hash;
                row.reason = shown.verdict.reason();
                if not.is_some() {
                    let but = row.reason.take().unwrap_or_else(|| "it was accepted".into());
                    row.reason = Some(format!("it must be refused ({why}), but {but}"));
                } else {
                    row.outcome = Outcome::Passed;
                }
            }
        }
    }

    fn check_end(&self) -> Result<(), EndError> {
        let end = &self.case.end;
        let Some(last) = end.last else { return Ok(()) };
        let start = self.case.start.header();
        let root = match self.known.get(&last) {
            Some(block) => block.snapshot.header.state_root,
            None if start.hash_slow() == last => start.state_root,
            None => return Err(EndError::Last(last)),
        };
        if end.state_root.is_some_and(|expected| expected != root) {
            return Err(EndError::Root);
        }
        if let Some(state) = &end.state {
            let expected = state.trie()?.root();
            if expected != root {
                return Err(EndError::State { expected, root });
            }
        }
        Ok(())
    }
}

/// The differences between the header in the file, if it has one, and the one from execution.
fn difference(file: Option<&Header>, computed: &Header, hash: B256) -> String {
    let Some(file) = file else {
        return format!("execution gives another hash than the file's {hash}");
    };
    let mut found = None;
    macro_rules! compare {
        ($($field:ident),+) => {
            $(if found.is_none() && file.$field != computed.$field {
                let (file, computed) = (&file.$field, &computed.$field);
                let name = stringify!($field);
                found = Some(format!("{name} is {file:?}, but execution gives {computed:?}"));
            })+
        };
    }
    compare!(gas_used, blob_gas_used, transactions_root, receipts_root, state_root);
    compare!(withdrawals_root, requests_hash, excess_blob_gas, parent_beacon_block_root);
    compare!(ommers_hash, nonce, difficulty, logs_bloom);
    found.unwrap_or_else(|| "execution gives another header".into())
}
