//! In what peers differ from this node in what all nodes must have alike.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_turbine::PeerId;
use fragcast_turbine::control::Difference;

/// What peers have told; an entry a peer, so as many as there are members.
#[derive(Debug, Default)]
pub struct Agreement(BTreeMap<PeerId, Vec<Difference>>);

/// How far the peers that are connected agree with this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Peers that are connected.
    pub connected: usize,
    /// Those of them that differ.
    pub differ: usize,
    /// Peers that differ, by kind of difference.
    pub by_kind: BTreeMap<&'static str, usize>,
    /// The differences in words, each once.
    pub texts: BTreeSet<String>,
}

impl Agreement {
    /// A peer has told in what it differs.
    pub(crate) fn note(&mut self, peer: PeerId, differences: Vec<Difference>) {
        self.0.insert(peer, differences);
    }

    /// How far those of `connected` agree.
    pub fn survey(&self, connected: impl Iterator<Item = PeerId>) -> Survey {
        let mut survey = Survey::default();
        for peer in connected {
            survey.connected += 1;
            let Some(differences) = self.0.get(&peer) else { continue };
            survey.differ += usize::from(!differences.is_empty());
            for difference in differences {
                *survey.by_kind.entry(difference.name()).or_default() += 1;
                survey.texts.insert(difference.to_string());
            }
        }
        survey
    }
}

impl Survey {
    /// Whether it is this node that is alone with what it goes by: more than half of the peers
    /// differ. A minority, which may lie, does not make a node unready.
    pub const fn is_alone(&self) -> bool {
        self.differ * 2 > self.connected
    }

    /// Who differs, and in what; `None` if nobody does.
    pub fn describe(&self) -> Option<String> {
        (self.differ > 0).then(|| {
            let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
            format!(
                "{} of {} peers differ from this node: {}; compare the network files",
                self.differ,
                self.connected,
                texts.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_is_named_and_only_a_majority_makes_a_node_unready() {
        let peer = |n| PeerId([n; 32]);
        let dialect = Difference::Dialect { ours: 0, theirs: 1 };
        let mut agreement = Agreement::default();
        agreement.note(peer(1), Vec::new());
        agreement.note(peer(2), vec![dialect]);
        agreement.note(peer(3), vec![dialect, Difference::Gateways { ours: 1, theirs: 2 }]);
        let survey = agreement.survey([1, 2].map(peer).into_iter());
        assert_eq!((survey.connected, survey.differ, survey.is_alone()), (2, 1, false));
        let text = survey.describe().unwrap();
        assert_eq!(
            text,
            "1 of 2 peers differ from this node: dialect is v0 here, v0-blob there; compare the \
             network files"
        );
        // Who is gone does not count, and who has told nothing does not differ.
        let survey = agreement.survey([2, 3, 9].map(peer).into_iter());
        assert_eq!((survey.connected, survey.differ, survey.is_alone()), (3, 2, true));
        assert_eq!(survey.by_kind, [("dialect", 2), ("gateways", 1)].into());
        assert_eq!(agreement.survey([1].map(peer).into_iter()).describe(), None);
        assert!(!Agreement::default().survey([].into_iter()).is_alone());
    }
}
