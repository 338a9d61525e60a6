//! Terms that are handed over: how the first block of a leader's term begins, beside its others.

use fragcast_shredder::Kind;

use crate::compare::counted;
use crate::fault::Faults;
use crate::load::Load;
use crate::outcome::{NEVER, Outcome};
use crate::{MILLIS, Nanos};

/// What hand-overs cost in a run; times are percentiles 99 in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOver {
    /// Hand-overs of which the Seal before and the Env after are known.
    pub terms: usize,
    /// From a predecessor's Seal to its arrival at the leader of the next term.
    pub seal: Nanos,
    /// From the Env of a term's first block to its completion at a node.
    pub first: Nanos,
    /// The same for the other blocks of these terms.
    pub within: Option<Nanos>,
    /// From a message to its leader's knowing that the next leader has it, if it asks.
    pub acknowledged: Option<Nanos>,
}

impl HandOver {
    /// Of a run; `None` if no term ends in it.
    pub fn of(load: &Load, faults: &Faults, outcome: &Outcome) -> Option<Self> {
        let mut seals = Vec::new();
        let (mut first, mut within) = (Vec::new(), Vec::new());
        let mut terms = 0;
        let last = load.broadcasts.iter().map(|broadcast| broadcast.key.block).max()?;
        let follows = |block: u64| block < last;
        for (broadcast, completion) in load.broadcasts.iter().zip(&outcome.completions) {
            let block = broadcast.key.block;
            let begins = |block: u64| block > 0 && load.leader(block - 1) != load.leader(block);
            match broadcast.kind {
                Kind::Seal if begins(block + 1) && follows(block) => {
                    seals.push(completion.after[load.leader(block + 1) as usize]);
                }
                Kind::Env => {
                    let nodes = counted(completion.after.len(), load, broadcast, faults);
                    let times = nodes.iter().map(|node| completion.after[*node as usize]);
                    // The first block of a run has no predecessor.
                    let sealed = load.broadcasts.iter().any(|other| other.key.block < block);
                    if begins(block) && sealed {
                        terms += 1;
                        first.extend(times);
                    } else if !begins(block) {
                        within.extend(times);
                    }
                }
                _ => {}
            }
        }
        let acks = outcome.held.iter().map(|(_, after)| *after).collect();
        Some(Self {
            terms,
            seal: p99(seals)?,
            first: p99(first)?,
            within: p99(within),
            acknowledged: p99(acks),
        })
    }
}

/// `None` if there is nothing, or something never came.
fn p99(mut times: Vec<Nanos>) -> Option<Nanos> {
    times.sort_unstable();
    // The nearest rank: of fewer than a hundred the highest.
    let at = (times.len() * 99).div_ceil(100).checked_sub(1)?;
    Some(times[at]).filter(|time| *time != NEVER)
}

impl std::fmt::Display for HandOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |nanos: Nanos| nanos as f64 / MILLIS as f64;
        write!(
            f,
            "{} hand-overs, p99: the next leader has the Seal after {:.1} ms, its Env is everywhere \
             after {:.1} ms",
            self.terms,
            ms(self.seal),
            ms(self.first),
        )?;
        if let Some(within) = self.within {
            write!(f, " (within terms {:.1})", ms(within))?;
        }
        if let Some(acknowledged) = self.acknowledged {
            write!(f, "; a leader knows after {:.1} ms that it has a message", ms(acknowledged))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::MessageKey;

    use super::*;
    use crate::load::Broadcast;

    /// Node 0 leads blocks 2 and 3, node 1 blocks 4 and 5. Every message takes `block` ms to all.
    fn run() -> (Load, Outcome) {
        let of = |block: u64, kind, message| Broadcast {
            at: 0,
            leader: if block < 4 { 0 } else { 1 },
            key: MessageKey { block, attempt: 0, message },
            kind,
            bytes: 500,
            expected: true,
            equivocal: false,
        };
        let blocks = 2..=5u64;
        let broadcasts: Vec<Broadcast> =
            blocks.flat_map(|block| [of(block, Kind::Env, 0), of(block, Kind::Seal, 1)]).collect();
        let mut outcome = Outcome::new(3, broadcasts.len());
        for (broadcast, completion) in broadcasts.iter().zip(&mut outcome.completions) {
            completion.after.fill(broadcast.key.block * MILLIS);
        }
        let load = Load { broadcasts, leaders: vec![1, 0], ..Load::single(vec![1, 0], 500) };
        (load, outcome)
    }

    #[test]
    fn first_blocks_are_told_beside_the_others() {
        let (load, mut outcome) = run();
        let found = HandOver::of(&load, &Faults::default(), &outcome).unwrap();
        let expected = HandOver {
            terms: 1,
            seal: 3 * MILLIS,
            first: 4 * MILLIS,
            within: Some(5 * MILLIS),
            acknowledged: None,
        };
        assert_eq!(found, expected);
        outcome.held = vec![(0, 7 * MILLIS)];
        let told = HandOver::of(&load, &Faults::default(), &outcome).unwrap().to_string();
        assert_eq!(
            told,
            "1 hand-overs, p99: the next leader has the Seal after 3.0 ms, its Env is everywhere \
             after 4.0 ms (within terms 5.0); a leader knows after 7.0 ms that it has a message"
        );
        // What never came is not told as a time.
        outcome.completions[3].after.fill(NEVER);
        assert_eq!(HandOver::of(&load, &Faults::default(), &outcome), None);
        let single = Load::single(vec![0, 1], 500);
        assert_eq!(HandOver::of(&single, &Faults::default(), &Outcome::new(3, 1)), None);
    }
}
