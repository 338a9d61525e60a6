//! Which messages are an opening's own.
//!
//! What the overlay says is taken as it is. What gossip says is a guess that a Seal confirms or
//! corrects by its transactions root; that root is asked for only where there is a choice, since
//! to compute it costs as much as to hash the block.

use alloy_primitives::B256;

use super::super::candidates::Candidate;
use super::super::openings::Opening;
use super::super::search::search;
use super::{Block, Position, View, index_of};

/// Seals whose frags are remembered: the leader's, and one of an opening before.
const MAX_PROOFS: usize = 2;
/// Seals of which it is remembered that none was found: those that a block can have at a time.
const MAX_FAILED: usize = 12;

/// How sure it is that a Seal ends the block, and that these are its frags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    /// There are others, none of them fits, and these are preferred.
    Preferred,
    /// There are no others.
    Only,
    /// The transactions have the Seal's root.
    Proven,
}

impl Block {
    /// The message of this index that is most likely the opening's, of those that may be handed
    /// on without a Seal's word.
    pub(super) fn preferred(&self, view: &View, index: u16) -> Option<&Candidate> {
        let all = self.frags.get(&index)?;
        if let Some(signed) = all.iter().find(|c| c.is_of(view.number)) {
            return Some(signed);
        }
        let handed = self.handed.as_ref().filter(|handed| handed.roots[0] == view.env);
        let root = handed.and_then(|handed| handed.roots.get(usize::from(index)));
        let own = |c: &&Candidate| c.lead == view.lead;
        let handed = root.and_then(|root| all.iter().filter(own).find(|c| c.root == *root));
        if handed.is_some() && !view.reorder {
            return handed;
        }
        let mut guesses = all.iter().filter(own).filter(|c| c.signed == 0 && c.delivered.is_some());
        let best = if view.strict {
            None
        } else if view.lone {
            guesses.min_by_key(|c| c.rank)
        } else {
            guesses.rfind(|c| c.rank > view.rank)
        };
        best.or(handed)
    }

    /// The messages that should be handed on.
    pub(super) fn wanted(&mut self, view: &View) -> Vec<(Position, B256)> {
        let opening = &self.openings.all[view.at];
        let handed = self.handed.as_ref().map_or(&[][..], |handed| &handed.roots);
        let signed: Option<usize> = self.seals.iter().position(|seal| seal.is_of(view.number));
        // A Seal that came before the Env is an older opening's if it fits one.
        let mine = |seal: &Candidate| {
            let other = |o: &&Opening| o.env.root != view.env && o.env.lead == view.lead;
            let others = || self.openings.all.iter().filter(other);
            let before = seal.rank < view.rank && others().any(|other| other.fits(seal));
            seal.signed == 0
                && seal.lead == view.lead
                && !view.certain
                && seal.delivered.is_some()
                && (view.lone || opening.fits(seal) && !before)
        };
        let mut seals: Vec<usize> = match signed {
            Some(signed) => vec![signed],
            None => (0..self.seals.len()).filter(|at| mine(&self.seals[*at])).collect(),
        };
        if !view.lone {
            seals.reverse();
        }
        let doubtful = seals.len() > 1;
        let is_handed = |at: usize| handed.contains(&self.seals[at].root);
        let handed_seal = seals.iter().copied().find(|at| is_handed(*at));
        let mut best: Option<(Trust, usize, Vec<B256>)> = None;
        for at in seals.iter().copied() {
            let Some((trust, frags)) = self.ended_by(view, at, doubtful) else { continue };
            let better = best.as_ref().is_none_or(|(other, _, _)| {
                trust > *other
                    || trust == *other && trust != Trust::Proven && handed_seal == Some(at)
            });
            if better {
                best = Some((trust, at, frags));
            }
        }
        let mut wanted = vec![(Position::Env, view.env)];
        let frag = |(at, root): (usize, B256)| (Position::Frag(at as u16 + 1), root);
        if let Some((_, at, frags)) = best {
            wanted.extend(frags.into_iter().enumerate().map(frag));
            wanted.push((Position::Seal, self.seals[at].root));
            return wanted;
        }
        // Nothing passes behind a Seal that is surely this opening's.
        let sure = signed.or_else(|| seals.first().copied().filter(|_| view.lone && !doubtful));
        let end = sure.and_then(|at| index_of(&self.seals[at])).unwrap_or(u16::MAX);
        let frags = (1..end).map_while(|index| self.preferred(view, index));
        wanted.extend(frags.enumerate().map(|(at, c)| frag((at, c.root))));
        wanted
    }

    /// The frags that end with this Seal, and how sure that is; `None` if some are missing or the
    /// Seal does not fit.
    fn ended_by(&mut self, view: &View, seal: usize, doubtful: bool) -> Option<(Trust, Vec<B256>)> {
        let (seal_root, rank) = (self.seals[seal].root, self.seals[seal].rank);
        let signed = self.seals[seal].is_of(view.number);
        let end = index_of(&self.seals[seal])?;
        let tx_root = self.seals[seal].seal()?.transactions_root;
        if usize::from(end) > self.count {
            return None;
        }
        let mut hashed = self.hashed;
        let mut options = Vec::new();
        let mut guesses = Vec::new();
        for index in 1..end {
            let all = self.frags.get(&index)?;
            let preferred = self.preferred(view, index);
            guesses.push(preferred.map(|c| c.root));
            let mut these: Vec<&Candidate> = preferred.into_iter().collect();
            if !these.iter().any(|c| c.is_of(view.number)) {
                let chosen = preferred.map(|c| c.root);
                let others = all.iter().rev().filter(|c| c.lead == view.lead);
                these.extend(others.filter(|c| Some(c.root) != chosen && c.delivered.is_some()));
            }
            if these.is_empty() {
                return None;
            }
            options.push(these);
        }
        let guesses: Option<Vec<B256>> = guesses.into_iter().collect();
        let several = options.iter().any(|these| these.len() > 1);
        let in_time = signed || view.lone || rank > view.rank;
        if let Some(guesses) = guesses.clone()
            && in_time
            && !several
            && !doubtful
            && (!view.strict || signed)
        {
            return Some((Trust::Only, guesses));
        }
        let found = match self.proofs.get(&seal_root) {
            Some(proof) if is_among(proof, &options) => Some(proof.clone()),
            _ => {
                let ranks = options.iter().flatten().flat_map(|c| c.rank.to_le_bytes());
                let ranks = blake3::hash(&ranks.collect::<Vec<u8>>());
                if self.failed.get(&seal_root) == Some(&ranks) {
                    None
                } else if let Some(found) = search(&options, tx_root, &mut hashed) {
                    let proof: Vec<B256> = found.iter().map(|c| c.root).collect();
                    if self.proofs.len() >= MAX_PROOFS {
                        self.proofs.pop_first();
                    }
                    self.proofs.insert(seal_root, proof.clone());
                    Some(proof)
                } else {
                    if self.failed.len() >= MAX_FAILED {
                        self.failed.pop_first();
                    }
                    self.failed.insert(seal_root, ranks);
                    None
                }
            }
        };
        self.hashed = hashed;
        match found {
            Some(proof) => Some((Trust::Proven, proof)),
            None if in_time && !view.strict => Some((Trust::Preferred, guesses?)),
            None => None,
        }
    }
}

/// Whether there is one root among the options of each place.
fn is_among(roots: &[B256], options: &[Vec<&Candidate>]) -> bool {
    roots.len() == options.len()
        && roots.iter().zip(options).all(|(root, these)| these.iter().any(|c| c.root == *root))
}
