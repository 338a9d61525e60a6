//! A follower without a network: messages are signed and shredded, some shreds are lost, the rest
//! is reassembled and verified on the way to an executor. Also the loop over all files, on every
//! core.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::B256;
use anyhow::Context;
use ed25519_dalek::SigningKey;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::{
    BlockError, Invalid, OnInvalid, OpenBlock, SealedBlock, StateSource, Tx, Unverified, Verdict,
};
use fragcast_shredder::{
    CodeRate, Dialect, GatewayKey, HashedShred, Limits, LossTarget, Message, MessageKey,
    MessageParams, Push, Reassembler, Shred, Shredder, SignedMessage, Timestamp, Validator,
};
use indicatif::ProgressBar;
use serde_json::json;

use super::case::{Case, Loaded};
use super::content::{Content, open};
use super::drive::{Cut, Followers, Heard, drive, parent};
use super::report::{Ignored, Report, Row};
use crate::lab::fixtures::input::{self, Document, InputError};
use crate::lab::local::digest;

/// How often lost shreds are sent again, as repair would.
const ROUNDS: usize = 8;

/// Bytes of a worker's stack: 16 MiB, of which little is touched.
const STACK: usize = 16 << 20;

/// Documents that wait for a worker. With one at each worker, at most
/// `(workers + 1) × MAX_FILE_LEN` bytes are held.
const WAITING: usize = 0;

/// Options that are the same for all cases.
#[derive(Debug, Clone, Copy)]
pub struct OfflineOptions {
    /// How blocks are cut.
    pub cut: Cut,
    /// Share of shreds lost.
    pub loss: f64,
    /// Seed of the losses.
    pub seed: u64,
}

/// Shreds, loses, reassembles and verifies.
struct Pipe {
    gateway: GatewayKey,
    leader: SigningKey,
    lost: blake3::OutputReader,
    loss: f64,
    dialect: Dialect,
}

impl Pipe {
    fn lost(&mut self) -> bool {
        let mut bytes = [0; 4];
        self.lost.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) < self.loss * f64::from(u32::MAX)
    }

    /// Passes the messages of one block. Each block has a shredder, a validator and a reassembler
    /// of its own, because side chains have several blocks with one number, which one validator
    /// would take for equivocation.
    fn pass(
        &mut self,
        chain_id: u64,
        messages: &[SignedMessage],
    ) -> anyhow::Result<Vec<SignedMessage>> {
        let mut shredder = Shredder::new(chain_id, self.leader.clone());
        let mut validator = Validator::new(chain_id, Validator::DEFAULT_CAPACITY);
        let mut reassembler = Reassembler::new(Limits::default());
        messages
            .iter()
            .map(|signed| self.pass_one(&mut shredder, &mut validator, &mut reassembler, signed))
            .collect()
    }

    fn pass_one(
        &mut self,
        shredder: &mut Shredder,
        validator: &mut Validator,
        reassembler: &mut Reassembler,
        signed: &SignedMessage,
    ) -> anyhow::Result<SignedMessage> {
        let message: &Message = &signed.message;
        let kind = message.kind();
        let index = message.index().context("more frags than can be numbered")?;
        let params = MessageParams {
            key: MessageKey { block: message.block(), attempt: 0, message: index },
            kind,
            plan: 0,
            route: 0,
            route_param: 0,
            sent_at: Timestamp::default(),
        };
        let wire = signed.to_wire();
        let target = LossTarget::over_hops(self.loss.max(0.02), 1, 0.0);
        let cut = shredder.shred(&wire, &params, CodeRate::new(wire.len(), target))?;
        let key = shredder.verifying_key();
        let mut whole = None;
        for _ in 0..ROUNDS {
            for (set, index) in cut.in_sending_order() {
                if self.lost() {
                    continue;
                }
                let shred = Shred::parse(set.shreds[usize::from(index)].clone())?;
                let valid = validator.validate(HashedShred::new(shred), &key)?;
                let pushed = reassembler.push(&valid)?;
                if let Push::Complete { message: Some(message), .. } = pushed {
                    whole = Some(message);
                }
            }
            while let Some(check) = reassembler.check_next() {
                check.map_err(|key| anyhow::anyhow!("inconsistent parity in {key:?}"))?;
            }
            if let Some(whole) = &whole {
                let wire = whole.wire.clone().into();
                return Ok(SignedMessage::from_wire(kind, self.dialect, &wire)?);
            }
        }
        anyhow::bail!("too many shreds were lost")
    }
}

/// The block that a follower works on.
enum Work {
    Open(Box<OpenBlock>),
    Dead(Verdict),
}

/// A follower: an executor behind a pipe.
struct Follower {
    pipe: Pipe,
    spec: Option<Arc<ChainSpec>>,
    source: Option<Arc<dyn StateSource>>,
    known: HashMap<B256, SealedBlock>,
    sent: Vec<B256>,
    received: Vec<B256>,
}

impl Follower {
    fn new(options: &OfflineOptions, document: u64) -> anyhow::Result<Self> {
        let seed = blake3::Hasher::new()
            .update(&options.seed.to_le_bytes())
            .update(&document.to_le_bytes())
            .finalize_xof();
        let pipe = Pipe {
            gateway: GatewayKey::from_bytes(*crate::gateway::keys::random_secret())?,
            leader: SigningKey::from_bytes(&crate::gateway::keys::random_secret()),
            lost: seed,
            loss: options.loss,
            dialect: options.cut.dialect,
        };
        let (spec, source, known) = (None, None, HashMap::new());
        Ok(Self { pipe, spec, source, known, sent: Vec::new(), received: Vec::new() })
    }

    fn open(
        &self,
        env: &fragcast_shredder::Env,
        withdrawals: Option<&[Withdrawal]>,
    ) -> Result<OpenBlock, BlockError> {
        let (Some(spec), Some(source)) = (&self.spec, &self.source) else {
            return Err(Unverified::Internal("no case has begun".into()).into());
        };
        let parent = parent(&self.known, source, env.parent_hash)?;
        OpenBlock::open(spec, env, 0, parent, source, withdrawals.map(<[_]>::to_vec))
    }

    fn execute(
        &self,
        open: &mut OpenBlock,
        frag: &fragcast_shredder::Frag,
    ) -> Result<(), BlockError> {
        if frag.seq != open.frags() {
            let reason = format!("frag {} was expected", open.frags());
            return Err(Invalid::Frag { frag: frag.seq, reason }.into());
        }
        let op = self.spec.as_ref().is_some_and(|spec| spec.is_op());
        let txs = frag.txs.iter().map(|tx| Tx::decode(tx, op)).collect();
        open.execute(txs, frag.is_last, OnInvalid::Fail).map(drop)
    }

    fn take(&mut self, messages: Vec<Message>, withdrawals: Option<&[Withdrawal]>) -> Heard {
        let mut work = Work::Dead(Verdict::Unverified(Unverified::Internal("no Env".into())));
        for message in messages {
            match (message, &mut work) {
                (Message::Env(env), _) => {
                    work = match self.open(&env, withdrawals) {
                        Ok(open) => Work::Open(Box::new(open)),
                        Err(error) => Work::Dead(error.into()),
                    };
                }
                (Message::Frag(frag), Work::Open(open)) => {
                    if let Err(error) = self.execute(open, &frag) {
                        work = Work::Dead(error.into());
                    }
                }
                (Message::Seal(seal), Work::Open(open)) => {
                    let verdict = open.check(&seal);
                    let sure = !matches!(verdict, Verdict::Unverified(_)) && open.is_complete();
                    let hash = if sure { open.finish().ok().map(|(_, hash)| hash) } else { None };
                    if let (Verdict::Verified, Some(block)) = (&verdict, open.sealed()) {
                        self.known.insert(block.hash(), block);
                    }
                    return Heard { hash, verdict };
                }
                (_, Work::Dead(_)) => {}
            }
        }
        let verdict = match work {
            Work::Dead(verdict) => verdict,
            Work::Open(_) => Verdict::Unverified(Unverified::Internal("no Seal".into())),
        };
        Heard { hash: None, verdict }
    }
}

impl Followers for Follower {
    fn begin(&mut self, case: &Case) -> anyhow::Result<()> {
        self.known.clear();
        self.source = Some(case.start.source()?);
        self.spec = Some(Arc::clone(&case.spec));
        Ok(())
    }

    fn deliver(
        &mut self,
        messages: Vec<Message>,
        withdrawals: Option<&[Withdrawal]>,
    ) -> anyhow::Result<Vec<Heard>> {
        let chain_id = self.spec.as_ref().map_or(0, |spec| spec.chain_id);
        let signed: Vec<_> = messages.into_iter().map(|m| self.pipe.gateway.sign(m)).collect();
        self.sent.extend(signed.iter().map(SignedMessage::root));
        let gateway = self.pipe.gateway.address();
        let mut arrived = Vec::with_capacity(signed.len());
        for message in self.pipe.pass(chain_id, &signed)? {
            let verified = message.verify(gateway)?;
            self.received.push(verified.root());
            arrived.push(verified.message().clone());
        }
        Ok(vec![self.take(arrived, withdrawals)])
    }
}

/// The results of one document.
#[derive(Default)]
struct Done {
    rows: Vec<Row>,
    ignored: Option<Ignored>,
    sent: Vec<B256>,
    received: Vec<B256>,
}

fn run_case(case: Loaded, follower: &mut dyn Followers, cut: Cut) -> Vec<Row> {
    let case = match case {
        Loaded::Rows(rows) => return rows,
        Loaded::Case(case) => case,
    };
    // A bug in the EVM must cost one case and not the report on thousands.
    let done = catch_unwind(AssertUnwindSafe(|| drive(&case, follower, cut)));
    let reason = match done {
        Ok(Ok(rows)) => return rows,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the executor panicked: please report this as a bug of fragcast".to_owned(),
    };
    let mut row = Row::new(&case.source, &case.group);
    row.reason = Some(reason);
    let row = |number| Row { number, ..row.clone() };
    match &case.blocks[..] {
        [] => vec![row(None)],
        blocks => blocks.iter().map(|block| row(block.number)).collect(),
    }
}

/// Replays one case.
///
/// # Errors
/// None in practice: the keys of gateway and leader are made here.
#[cfg(test)]
pub(super) fn replay(case: Loaded, options: &OfflineOptions) -> anyhow::Result<Vec<Row>> {
    Ok(run_case(case, &mut Follower::new(options, 0)?, options.cut))
}

fn run_document(at: u64, document: Document, options: &OfflineOptions) -> anyhow::Result<Done> {
    let mut follower = Follower::new(options, at)?;
    let (rows, ignored) = replay_document(document, &mut follower, options.cut)?;
    Ok(Done { rows, ignored, sent: follower.sent, received: follower.received })
}

/// Replays what a document holds.
///
/// # Errors
/// A document that was named by itself and holds no blocks.
pub(super) fn replay_document(
    document: Document,
    followers: &mut dyn Followers,
    cut: Cut,
) -> anyhow::Result<(Vec<Row>, Option<Ignored>)> {
    let source = document.source.clone();
    let mut rows = Vec::new();
    match open(document)? {
        Content::Block(block) => {
            let case = Case::of_recorded(&source, &block);
            drop(block);
            rows = run_case(case, followers, cut);
        }
        Content::Tests(tests) => {
            for test in tests {
                rows.extend(run_case(Case::of_test(&source, test), followers, cut));
            }
        }
        Content::Damaged(row) => rows.push(*row),
        Content::Other(ignored) => return Ok((rows, Some(ignored))),
    }
    Ok((rows, None))
}

/// Replays all files, several at a time.
///
/// # Errors
/// A path that cannot be read, or a file named by itself that holds no blocks.
pub fn run(
    paths: &[PathBuf],
    options: &OfflineOptions,
    bar: &ProgressBar,
) -> anyhow::Result<Report> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = mpsc::sync_channel::<(u64, Document)>(WAITING);
    let receiver = Mutex::new(Some(receiver));
    let next = || {
        let guard = receiver.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().and_then(|receiver| receiver.recv().ok())
    };
    let done: Mutex<Vec<(u64, Done)>> = Mutex::default();
    let work = || -> anyhow::Result<()> {
        while let Some((at, document)) = next() {
            bar.set_message(document.source.clone());
            let result = run_document(at, document, options).inspect_err(|_| {
                // The reader finds nobody to read for, and stops.
                receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
            })?;
            bar.inc(result.rows.len() as u64);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
        Ok(())
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let mut threads = Vec::with_capacity(workers);
        for _ in 0..workers {
            threads.push(std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?);
        }
        let mut at = 0;
        let mut send = |document| {
            let sent = sender.send((at, document)).is_ok();
            at += 1;
            sent
        };
        let read: Result<(), InputError> =
            paths.iter().try_for_each(|path| input::read(path, &mut send).map(drop));
        drop(sender);
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a worker of the replay panicked"))??;
        }
        Ok(read?)
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    let mut report = Report::default();
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for (_, done) in done {
        report.rows.extend(done.rows);
        report.ignored.extend(done.ignored);
        sent.extend(done.sent);
        received.extend(done.received);
    }
    let (gateway, node) = (digest(sent.iter()), digest(received.iter()));
    report.digests = json!({ "gateway": gateway, "nodes": [node], "equal": gateway == node });
    Ok(report)
}
