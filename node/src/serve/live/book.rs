//! What came of the last blocks: message by message of the newest two, sums of the others.

use std::collections::{BTreeMap, VecDeque};

use fragcast_execution::executor::BlockReport;
use fragcast_shredder::{Kind, Message, MessageKey};
use fragcast_turbine::output::{Delivered, Output};
use fragcast_turbine::protocol::Race;
use fragcast_turbine::{Timestamp, Via};
use serde_json::{Value, json};

/// Blocks that are remembered.
const BLOCKS: usize = 32;
/// Blocks that are told of.
const TOLD: usize = 16;
/// Messages of a block that are remembered one by one, the first ones: 104 bytes each.
const MESSAGES: usize = 1_024;
/// Messages of the open block that are told one by one, the last ones.
const TOLD_MESSAGES: usize = 96;
/// Blocks whose messages are remembered one by one.
const IN_FULL: usize = 2;
/// Latencies that are remembered.
const LATENCIES: usize = 256;

/// The way of a message as the page names it.
fn way(via: Via) -> &'static str {
    match via {
        Via::Own => "own",
        Via::Turbine => "overlay",
        Via::Repair | Via::Whole => "repair",
        Via::Gossip => "gossip",
    }
}

/// How many messages came which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ways {
    own: u64,
    overlay: u64,
    repair: u64,
    gossip: u64,
}

impl Ways {
    const fn note(&mut self, via: Via) {
        *match via {
            Via::Own => &mut self.own,
            Via::Turbine => &mut self.overlay,
            Via::Repair | Via::Whole => &mut self.repair,
            Via::Gossip => &mut self.gossip,
        } += 1;
    }

    fn json(self) -> Value {
        json!({
            "own": self.own,
            "overlay": self.overlay,
            "repair": self.repair,
            "gossip": self.gossip,
        })
    }
}

/// A message of a block.
#[derive(Debug, Clone, Copy)]
struct Row {
    index: u16,
    kind: Kind,
    bytes: usize,
    txs: usize,
    gas: Option<u64>,
    via: Via,
    sent: Option<Timestamp>,
    first: Timestamp,
    whole: Timestamp,
    executed: Option<Timestamp>,
    /// By how many µs the overlay was ahead of gossip.
    lead: Option<i64>,
}

impl Row {
    fn of(delivered: &Delivered) -> Self {
        let message = delivered.message.message();
        let (bytes, txs) = match message {
            Message::Frag(frag) => (frag.txs.iter().map(|tx| tx.len()).sum(), frag.txs.len()),
            Message::Env(_) | Message::Seal(_) => (0, 0),
        };
        Self {
            index: delivered.key.message,
            kind: message.kind(),
            bytes,
            txs,
            gas: None,
            via: delivered.via,
            sent: delivered.times.sent_at,
            first: delivered.times.first_shred_at,
            whole: delivered.times.complete_at,
            executed: None,
            lead: None,
        }
    }

    fn json(&self) -> Value {
        json!({
            "i": self.index,
            "kind": self.kind.name(),
            "bytes": self.bytes,
            "txs": self.txs,
            "gas": self.gas,
            "via": way(self.via),
            "sent": self.sent.map(Timestamp::as_micros),
            "first": self.first.as_micros(),
            "whole": self.whole.as_micros(),
            "executed": self.executed.map(Timestamp::as_micros),
            "leadMs": self.lead.map(|micros| micros as f64 / 1e3),
        })
    }
}

/// A block.
#[derive(Debug, Clone, Default)]
struct Block {
    attempt: u8,
    attempts: u32,
    at: Option<Timestamp>,
    sealed: Option<Timestamp>,
    rows: Vec<Row>,
    messages: u64,
    bytes: u64,
    txs: u64,
    gas: u64,
    ways: Ways,
    latencies: Vec<u32>,
    verdict: Option<&'static str>,
    reason: Option<String>,
    hash: Option<String>,
}

impl Block {
    fn begin(&mut self, attempt: u8) {
        *self = Self { attempt, attempts: self.attempts + 1, ..Self::default() };
    }

    fn median(&self) -> Option<f64> {
        let mut all = self.latencies.clone();
        all.sort_unstable();
        all.get(all.len() / 2).map(|micros| f64::from(*micros) / 1e3)
    }

    fn json(&self, number: u64) -> Value {
        json!({
            "block": number,
            "attempt": self.attempt,
            "attempts": self.attempts,
            "messages": self.messages,
            "bytes": self.bytes,
            "txs": self.txs,
            "gas": self.gas,
            "ways": self.ways.json(),
            "latencyMs": self.median(),
            "sealedAt": self.sealed.map(Timestamp::as_micros),
            "verdict": self.verdict,
            "reason": self.reason,
            "hash": self.hash,
        })
    }

    fn json_open(&self, number: u64) -> Value {
        let told = self.rows.len().saturating_sub(TOLD_MESSAGES);
        json!({
            "block": number,
            "attempt": self.attempt,
            "attempts": self.attempts,
            "at": self.at.map(Timestamp::as_micros),
            "sealed": self.sealed.is_some(),
            "count": self.messages,
            "bytes": self.bytes,
            "txs": self.txs,
            "gas": self.gas,
            "ways": self.ways.json(),
            "messages": self.rows[told..].iter().map(Row::json).collect::<Vec<Value>>(),
        })
    }
}

/// See the module. 32 blocks, of which two have 1,024 rows, and 2,048 latencies of each: half a
/// megabyte at most.
#[derive(Debug, Default)]
pub(super) struct Book {
    blocks: BTreeMap<u64, Block>,
    newest: Option<u64>,
    latencies: VecDeque<u32>,
    first: Ways,
}

impl Book {
    /// Takes what the sequencer handed on.
    pub(super) fn note(&mut self, output: &Output) {
        match output {
            Output::Message(delivered) => self.message(delivered),
            Output::Retracted { block, attempt, .. } => {
                if let Some(known) = self.blocks.get_mut(block).filter(|b| b.attempt == *attempt) {
                    let (attempt, attempts) = (known.attempt, known.attempts);
                    *known = Block { attempt, attempts, ..Block::default() };
                }
            }
        }
    }

    fn message(&mut self, delivered: &Delivered) {
        let MessageKey { block, attempt, .. } = delivered.key;
        if self.blocks.len() >= BLOCKS
            && self.blocks.first_key_value().is_some_and(|(lowest, _)| block < *lowest)
        {
            return;
        }
        let row = Row::of(delivered);
        let known = self.blocks.entry(block).or_default();
        if known.attempts == 0 || known.attempt != attempt {
            known.begin(attempt);
        }
        if row.kind == Kind::Env {
            known.at = Some(row.whole);
        }
        if row.kind == Kind::Seal {
            known.sealed = Some(row.whole);
        }
        known.messages += 1;
        known.bytes += row.bytes as u64;
        known.txs += row.txs as u64;
        known.ways.note(row.via);
        if known.rows.len() < MESSAGES {
            known.rows.push(row);
        }
        if delivered.via != Via::Own {
            self.first.note(delivered.via);
            if let Some(took) = delivered.times.latency() {
                let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                if known.latencies.len() < MESSAGES {
                    known.latencies.push(micros);
                }
                if self.latencies.len() >= LATENCIES {
                    self.latencies.pop_front();
                }
                self.latencies.push_back(micros);
            }
        }
        self.newest = self.newest.max(Some(block));
        while self.blocks.len() > BLOCKS {
            self.blocks.pop_first();
        }
        for known in self.blocks.values_mut().rev().skip(IN_FULL) {
            known.rows = Vec::new();
        }
    }

    /// A frag was executed, which is the `count`th of its block, and used so much gas.
    pub(super) fn executed(
        &mut self,
        block: u64,
        attempt: u8,
        count: usize,
        gas: u64,
        at: Timestamp,
    ) {
        let Some(known) = self.blocks.get_mut(&block).filter(|b| b.attempt == attempt) else {
            return;
        };
        known.gas += gas;
        let row = known.rows.iter_mut().rev().find(|row| usize::from(row.index) == count);
        if let Some(row) = row {
            (row.gas, row.executed) = (Some(gas), Some(at));
        }
    }

    /// The executor's verdict on a block.
    pub(super) fn verdict(&mut self, report: &BlockReport) {
        let Some(known) =
            self.blocks.get_mut(&report.number).filter(|b| b.attempt == report.attempt)
        else {
            return;
        };
        known.verdict = Some(report.verdict.name());
        known.reason = report.verdict.reason();
        known.hash = (!report.hash.is_zero()).then(|| report.hash.to_string());
        known.gas = known.gas.max(report.gas_used);
    }

    /// A message came both ways.
    pub(super) fn race(&mut self, race: &Race) {
        let Some(known) = self.blocks.get_mut(&race.key.block) else { return };
        let row = known.rows.iter_mut().rev().find(|row| row.index == race.key.message);
        if let Some(row) = row {
            let micros = |at: Timestamp| i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
            row.lead = Some(micros(race.gossip_at).saturating_sub(micros(race.overlay_at)));
        }
    }

    /// The newest block, message by message.
    pub(super) fn open(&self) -> Value {
        let newest = self.newest.and_then(|number| Some((number, self.blocks.get(&number)?)));
        newest.map_or(Value::Null, |(number, block)| block.json_open(number))
    }

    /// The last blocks, newest first.
    pub(super) fn blocks(&self) -> Value {
        self.blocks.iter().rev().take(TOLD).map(|(number, block)| block.json(*number)).collect()
    }

    /// When the newest message came.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.blocks.values().flat_map(|block| block.rows.last()).map(|row| row.whole).max()
    }

    /// Percentiles of the last latencies, and which way was first how often.
    pub(super) fn latency(&self) -> (Value, Value) {
        let mut all: Vec<u32> = self.latencies.iter().copied().collect();
        all.sort_unstable();
        let at = |share: f64| {
            let place = ((all.len() - 1) as f64 * share) as usize;
            f64::from(all[place]) / 1e3
        };
        let recent = match all.is_empty() {
            true => Value::Null,
            false => json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "n": all.len() }),
        };
        (recent, self.first.json())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fragcast_shredder::{BlockBuilder, GatewayKey, VerifiedMessage};
    use fragcast_turbine::output::{RetractReason, Times};

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    fn signed(message: impl Into<Message>) -> VerifiedMessage {
        GatewayKey::from_bytes([7; 32]).unwrap().sign_verified(message)
    }

    fn output(attempt: u8, message: VerifiedMessage, via: Via, ms: u64) -> Output {
        let times =
            Times { sent_at: Some(at(ms - 4)), first_shred_at: at(ms - 1), complete_at: at(ms) };
        let delivered = Delivered::of_attempt(attempt, message, times, via).unwrap();
        Output::Message(Arc::new(delivered))
    }

    /// Env and a frag of two transactions.
    fn begin(book: &mut Book, block: u64, attempt: u8, via: Via) {
        let mut builder = BlockBuilder::new(block);
        book.note(&output(attempt, signed(builder.env()), via, 100));
        book.note(&output(attempt, signed(builder.frag([vec![1; 20], vec![2; 30]])), via, 104));
    }

    #[test]
    fn the_open_block_is_told_message_by_message() {
        let mut book = Book::default();
        assert_eq!(book.open(), Value::Null);
        begin(&mut book, 7, 0, Via::Turbine);
        book.executed(7, 0, 1, 42_000, at(109));
        book.race(&Race {
            key: MessageKey { block: 7, attempt: 0, message: 1 },
            kind: Kind::Frag,
            overlay_at: at(104),
            gossip_at: at(110),
        });
        let open = book.open();
        assert_eq!(
            (&open["block"], &open["count"], &open["txs"]),
            (&7.into(), &2.into(), &2.into())
        );
        let frag = &open["messages"][1];
        assert_eq!(
            (&frag["kind"], &frag["bytes"], &frag["via"]),
            (&"frag".into(), &50.into(), &"overlay".into())
        );
        assert_eq!((&frag["gas"], &frag["leadMs"]), (&42_000.into(), &6.0.into()));
        assert_eq!(open["ways"]["overlay"], 2);
        let (recent, first) = book.latency();
        assert_eq!(
            (&recent["p50"], &recent["n"], &first["overlay"]),
            (&4.0.into(), &2.into(), &2.into())
        );
    }

    #[test]
    fn another_attempt_begins_anew_and_what_was_retracted_is_gone() {
        let mut book = Book::default();
        begin(&mut book, 7, 0, Via::Gossip);
        let reason = RetractReason::Superseded { by: 1 };
        book.note(&Output::Retracted { block: 7, attempt: 0, reason });
        assert_eq!(book.open()["count"], 0);
        begin(&mut book, 7, 1, Via::Repair);
        assert_eq!(book.open()["attempts"], 2);
        let blocks = book.blocks();
        assert_eq!((&blocks[0]["attempt"], &blocks[0]["attempts"]), (&1.into(), &2.into()));
        assert_eq!(
            (&blocks[0]["ways"]["repair"], &blocks[0]["ways"]["gossip"]),
            (&2.into(), &0.into())
        );
    }

    #[test]
    fn old_blocks_are_sums_and_the_oldest_are_forgotten() {
        let mut book = Book::default();
        for block in 1..=100 {
            begin(&mut book, block, 0, Via::Turbine);
        }
        assert_eq!(book.blocks.len(), BLOCKS);
        let in_full = book.blocks.values().filter(|block| !block.rows.is_empty()).count();
        assert_eq!(in_full, IN_FULL);
        let blocks = book.blocks();
        assert_eq!(blocks.as_array().unwrap().len(), TOLD);
        assert_eq!((&blocks[0]["block"], &blocks[15]["txs"]), (&100.into(), &2.into()));
        // What is older than all that are remembered does not push them out.
        begin(&mut book, 3, 0, Via::Turbine);
        assert!(!book.blocks.contains_key(&3));
        assert_eq!(book.latencies.len(), 200);
    }
}
