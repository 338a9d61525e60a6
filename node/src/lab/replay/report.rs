//! The results of a replay: a row for each block, a table for people, a report for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use alloy_primitives::B256;
use serde_json::{Value, json};

/// Blocks that are listed one by one; longer lists are summed up.
const MAX_TABLE: usize = 40;

/// The outcome of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Valid and executed by every follower to the hash in the file; or invalid, and refused.
    Passed,
    /// Anything else.
    Failed,
    /// Not run, because its network cannot be executed.
    Skipped,
}

impl Outcome {
    fn name(self) -> &'static str {
        self.into()
    }
}

/// A block of the report.
#[derive(Debug, Clone)]
pub struct Row {
    /// The file, and the test in it.
    pub source: String,
    /// The group under which it is summed up.
    pub group: String,
    /// Its number; `None` if it does not decode.
    pub number: Option<u64>,
    /// Whether the file says that it is valid.
    pub valid: bool,
    /// Hash that the file gives a valid block.
    pub expected_hash: Option<B256>,
    /// Hash that execution gave.
    pub computed_hash: Option<B256>,
    /// `verified`, `rejected`, `unverified`, `refused` (before it was cut), `missing` (messages
    /// were lost), `delivered` (nobody executed it) or `skipped`.
    pub verdict: &'static str,
    /// Its outcome.
    pub outcome: Outcome,
    /// The reason.
    pub reason: Option<String>,
    /// Withdrawals that reached executors beside the messages.
    pub withdrawals: usize,
    /// Gas used, of a block of a real chain.
    pub gas: u64,
    /// Time that the gateway took to execute such a block and make its Seal.
    pub took: Duration,
}

impl Row {
    /// A row of a valid block, failed until proven otherwise.
    pub fn new(source: &str, group: &str) -> Self {
        Self {
            source: source.to_owned(),
            group: group.to_owned(),
            number: None,
            valid: true,
            expected_hash: None,
            computed_hash: None,
            verdict: "unverified",
            outcome: Outcome::Failed,
            reason: None,
            withdrawals: 0,
            gas: 0,
            took: Duration::ZERO,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "source": self.source,
            "number": self.number,
            "expected": if self.valid { "valid" } else { "invalid" },
            "expected_hash": self.expected_hash,
            "computed_hash": self.computed_hash,
            "verdict": self.verdict,
            "outcome": self.outcome.name(),
            "reason": self.reason,
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let number = self.number.map_or_else(|| "-".into(), |number| number.to_string());
        let reason = self.reason.as_deref().unwrap_or("");
        writeln!(out, "{number:>12}  {:<10}  {}  {reason}", self.verdict, self.source)
    }
}

/// A file that holds no blocks.
#[derive(Debug, Clone)]
pub struct Ignored {
    /// The file.
    pub source: String,
    /// What the file is instead.
    pub reason: String,
}

/// All results of a replay.
#[derive(Debug, Default)]
pub struct Report {
    /// Blocks.
    pub rows: Vec<Row>,
    /// Files without blocks.
    pub ignored: Vec<Ignored>,
    /// Digests of what was sent and what arrived.
    pub digests: Value,
    /// How long it took.
    pub took: Duration,
}

/// Counts of some rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that passed: `executed` and `refused`.
    pub passed: usize,
    /// Blocks that failed.
    pub failed: usize,
    /// Blocks of networks that are not executed.
    pub skipped: usize,
    /// Valid blocks that passed.
    pub executed: usize,
    /// Invalid blocks that passed.
    pub refused: usize,
}

impl Counts {
    fn add(&mut self, row: &Row) {
        match row.outcome {
            Outcome::Passed => {
                self.passed += 1;
                *(if row.valid { &mut self.executed } else { &mut self.refused }) += 1;
            }
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
    }
}

impl Report {
    /// Counts over all rows.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.rows.iter().for_each(|row| counts.add(row));
        counts
    }

    /// Tests that were skipped, by source, in order.
    fn skipped(&self) -> Vec<&Row> {
        let mut tests: Vec<&Row> =
            self.rows.iter().filter(|row| row.outcome == Outcome::Skipped).collect();
        tests.dedup_by_key(|row| &row.source);
        tests
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.counts().failed == 0 && self.digests["equal"] == true
    }

    /// Gas and time of the blocks of real chains that were executed.
    fn speed(&self) -> (u64, f64) {
        let took: Duration = self.rows.iter().map(|row| row.took).sum();
        let gas = self.rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.gas));
        (gas, took.as_secs_f64())
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        let counts = self.counts();
        let passed = || self.rows.iter().filter(|row| row.outcome == Outcome::Passed && row.valid);
        let withdrawals: usize = passed().map(|row| row.withdrawals).sum();
        let (gas, seconds) = self.speed();
        json!({
            "passed": counts.passed,
            "failed": counts.failed,
            "skipped": counts.skipped,
            "executed": counts.executed,
            "refused": counts.refused,
            "withdrawals": {
                "blocks": passed().filter(|row| row.withdrawals > 0).count(),
                "count": withdrawals,
            },
            "gas": gas,
            "execution_seconds": seconds,
            "mgas_per_second": if seconds > 0.0 { gas as f64 / seconds / 1e6 } else { 0.0 },
            "seconds": self.took.as_secs_f64(),
            "skipped_tests": self.skipped().iter().map(|row| &row.source).collect::<Vec<_>>(),
            "ignored": self.ignored.iter().map(|ignored| {
                json!({ "source": ignored.source, "reason": ignored.reason })
            }).collect::<Vec<_>>(),
            "digests": self.digests,
            "blocks": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }

    /// The table for people: every block if there are few, otherwise sums; failures are always
    /// listed.
    ///
    /// # Errors
    /// The output's.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.len() <= MAX_TABLE {
            self.rows.iter().try_for_each(|row| row.write(out))?;
        } else {
            self.write_sums(out)?;
        }
        for ignored in &self.ignored {
            writeln!(out, "ignored {}: {}", ignored.source, ignored.reason)?;
        }
        let counts = self.counts();
        let skipped = self.skipped().len();
        write!(out, "{} passed", counts.passed)?;
        if counts.refused > 0 {
            write!(
                out,
                " ({} valid executed, {} invalid refused)",
                counts.executed, counts.refused
            )?;
        }
        write!(out, ", {} failed, {} skipped", counts.failed, counts.skipped)?;
        if skipped > 0 {
            write!(out, " (in {skipped} tests)")?;
        }
        let (gas, seconds) = self.speed();
        if seconds > 0.0 && gas > 0 {
            let mgas = gas as f64 / 1e6;
            write!(out, "; {mgas:.1} Mgas at {:.0} Mgas/s", mgas / seconds)?;
        }
        let equal = if self.digests["equal"] == true { "equal" } else { "NOT EQUAL" };
        let digest = self.digests["gateway"].as_str().unwrap_or("-");
        writeln!(out, "\ndigest of all messages {digest} on every node: {equal}")
    }

    fn write_sums(&self, out: &mut impl Write) -> io::Result<()> {
        let mut groups: BTreeMap<&str, Counts> = BTreeMap::new();
        self.rows.iter().for_each(|row| groups.entry(&row.group).or_default().add(row));
        let width = groups.keys().map(|name| name.len()).max().unwrap_or(0);
        writeln!(out, "{:<width$}  executed  refused   failed  skipped", "")?;
        for (name, c) in groups {
            let Counts { executed, refused, failed, skipped, .. } = c;
            writeln!(out, "{name:<width$}  {executed:>8} {refused:>8} {failed:>8} {skipped:>8}")?;
        }
        for row in self.skipped() {
            writeln!(out, "skipped {}: {}", row.source, row.reason.as_deref().unwrap_or(""))?;
        }
        self.rows.iter().filter(|row| row.outcome == Outcome::Failed).try_for_each(|r| r.write(out))
    }
}
