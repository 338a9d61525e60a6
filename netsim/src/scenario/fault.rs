//! Faults in a file: their kinds, the nodes they affect, and their times.

use strum::VariantArray as _;

use super::reader::{Section, Value, whole};
use super::{LoadOptions, Position, Shape};
use crate::fault::Span;
use crate::{MILLIS, Nanos, NodeId};

/// The most nodes or places that a fault names.
const MAX_NAMES: usize = 10_000;
/// The latest time in a file: a hundred days.
pub(super) const MAX_MS: f64 = 8_640_000_000.0;

/// A fault in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultOptions {
    /// The kind of fault with its parameters.
    pub kind: FaultKind,
    /// Its position in the file.
    pub position: Position,
}

/// A kind of fault, with its parameters.
#[derive(Debug, Clone, PartialEq, strum::EnumDiscriminants, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[strum_discriminants(name(Kind), vis(), doc = "A kind of fault, without whom and when.")]
#[strum_discriminants(derive(strum::IntoStaticStr, strum::VariantArray))]
#[strum_discriminants(strum(serialize_all = "snake_case"))]
#[non_exhaustive]
pub enum FaultKind {
    /// Hosts neither send nor receive.
    Crash {
        /// The affected hosts.
        who: Who,
        /// When the fault lasts.
        span: Span,
    },
    /// Hosts receive, but neither forward nor answer.
    Silent {
        /// The affected hosts.
        who: Who,
        /// When the fault lasts.
        span: Span,
    },
    /// No packet passes between these hosts and the others.
    Partition {
        /// The hosts on one side.
        who: Who,
        /// When the fault lasts.
        span: Span,
    },
    /// UDP is blocked between these hosts and all others.
    TurbineDown {
        /// The affected hosts.
        who: Who,
        /// When the fault lasts.
        span: Span,
    },
    /// The hosts' uplink has another rate.
    SlowUplink {
        /// The affected hosts.
        who: Who,
        /// When the fault lasts.
        span: Span,
        /// The rate, bits per second.
        bps: u64,
    },
    /// A leader signs two versions of a message and sends each to half of the nodes. If the block
    /// is built more than once, this is in the last attempt.
    Equivocate {
        /// The block, from 1.
        block: u64,
        /// The message, 0 being the Env.
        message: u16,
    },
    /// A leader rebuilds a block: the messages sent so far are void, the rest is not sent, and the
    /// next attempt begins an interval later. All later blocks are delayed accordingly.
    Rebuild {
        /// The block, from 1.
        block: u64,
        /// The last message of the attempt that is given up.
        after_message: u16,
    },
    /// A leader crashes for good, a millisecond after it began to send a message of the block's
    /// last attempt. The rest of its block and its later blocks are never sent; the next leader
    /// begins its term on time.
    LeaderDies {
        /// The block, from 1.
        block: u64,
        /// The last message it sends.
        after_message: u16,
    },
    /// A gateway more registers when the fault begins, and leads as the last of the rotation from
    /// the first term on that the protocol's rule gives it. These hosts do not reach the registry
    /// until the fault ends.
    Registration {
        /// The affected hosts.
        who: Who,
        /// From the registration until the registry is there for them again.
        span: Span,
    },
    /// Members leave without a word and others join, all the time: a table in which the ones are not
    /// any more and the others are follows with a term that begins half a period later.
    Churn {
        /// Members that leave in a minute, as a share of all nodes; as many join.
        share_a_minute: f64,
        /// Time between two tables.
        every: Nanos,
    },
}

/// The nodes that a fault affects.
#[derive(Debug, Clone, PartialEq)]
pub enum Who {
    /// Nodes drawn among those that never lead.
    Share {
        /// Their number as a share of all nodes. At most all that never lead are drawn.
        share: f64,
        /// Whether they are drawn by weight. Otherwise all are equally likely.
        by_weight: bool,
    },
    /// All nodes, leaders included.
    All,
    /// The named nodes, whether they lead or not.
    Nodes(Vec<NodeName>),
    /// All nodes at the named places, whether they lead or not.
    Places(Vec<String>),
}

/// A node's name in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeName {
    /// Its id.
    Id(String),
    /// Its index in the world, from 0.
    Index(NodeId),
}

impl FaultKind {
    /// Its name in a file.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// Why it is impossible with this load; `None` if it is possible.
    pub(super) fn misfit(&self, load: &LoadOptions) -> Option<String> {
        let (block, message, last) = match self {
            Self::Equivocate { block, message } => (*block, *message, load.seal()),
            Self::LeaderDies { block, after_message } => (*block, *after_message, load.seal()),
            Self::Rebuild { block, after_message } => (*block, *after_message, load.frags),
            Self::Registration { .. } | Self::Churn { .. } => (1, 0, load.frags),
            _ => return None,
        };
        let name = self.name();
        match (load.shape, self) {
            (
                Shape::Frag,
                Self::Rebuild { .. } | Self::Registration { .. } | Self::Churn { .. },
            ) => Some(format!(
                "a fault of kind `{name}` needs whole blocks; set `load.shape` to \"blocks\""
            )),
            (Shape::Frag, _) if (block, message) != (1, 1) => Some(format!(
                "a fault of kind `{name}`: with `load.shape` \"frag\" there is block 1 only, and \
                 message 1 of it"
            )),
            (Shape::Blocks, _) if block > load.blocks => Some(format!(
                "a fault of kind `{name}` in block {block}, but `load.blocks` is {}",
                load.blocks
            )),
            (Shape::Blocks, _) if message > last => Some(format!(
                "a fault of kind `{name}` at message {message}, but with `load.frags` {} it can \
                 be 0 to {last}",
                load.frags
            )),
            _ => None,
        }
    }
}

impl FaultOptions {
    /// Reads one `[[fault]]` of a scenario with this load.
    pub(super) fn read(mut section: Section<'_, '_, '_>, load: &LoadOptions) -> Option<Self> {
        let position = section.position();
        let mut kind = Kind::Crash;
        if !section.has("kind") {
            let names: Vec<&str> = Kind::VARIANTS.iter().map(Into::into).collect();
            section.missing("kind", &format!("one of {}", names.join(", ")));
            return None;
        }
        if !section.choice("kind", &mut kind) {
            return None;
        }
        let kind =
            match kind {
                Kind::Crash => {
                    befallen(&mut section, load).map(|(who, span)| FaultKind::Crash { who, span })
                }
                Kind::Silent => {
                    befallen(&mut section, load).map(|(who, span)| FaultKind::Silent { who, span })
                }
                Kind::Partition => befallen(&mut section, load)
                    .map(|(who, span)| FaultKind::Partition { who, span }),
                Kind::TurbineDown => befallen(&mut section, load)
                    .map(|(who, span)| FaultKind::TurbineDown { who, span }),
                Kind::Registration => befallen(&mut section, load)
                    .map(|(who, span)| FaultKind::Registration { who, span }),
                Kind::SlowUplink => {
                    let mut bps = 0;
                    require(&mut section, "mbit", "the uplink's rate");
                    section.scaled("mbit", super::parse::MBIT, 1e6, &mut bps);
                    befallen(&mut section, load).map(|(who, span)| FaultKind::SlowUplink {
                        who,
                        span,
                        bps,
                    })
                }
                Kind::Churn => churn(&mut section),
                Kind::Equivocate => at_message(&mut section, "message")
                    .map(|(block, message)| FaultKind::Equivocate { block, message }),
                Kind::Rebuild => at_message(&mut section, "after_message")
                    .map(|(block, after_message)| FaultKind::Rebuild { block, after_message }),
                Kind::LeaderDies => at_message(&mut section, "after_message")
                    .map(|(block, after_message)| FaultKind::LeaderDies { block, after_message }),
            };
        section.finish();
        kind.map(|kind| Self { kind, position })
    }
}

fn require(section: &mut Section<'_, '_, '_>, key: &str, what: &str) {
    if !section.has(key) {
        section.missing(key, what);
    }
}

/// Reads how many members come and go.
fn churn(section: &mut Section<'_, '_, '_>) -> Option<FaultKind> {
    require(section, "share_a_minute", "members that leave in a minute, as a share of all nodes");
    require(section, "every_ms", "the time between two tables");
    let (mut share_a_minute, mut every) = (f64::NAN, 0);
    section.number("share_a_minute", 0.0..=1.0, &mut share_a_minute);
    section.scaled("every_ms", 1_000.0..=MAX_MS, 1e6, &mut every);
    (every > 0 && share_a_minute > 0.0).then_some(FaultKind::Churn { share_a_minute, every })
}

/// Reads the block and message of a fault of a leader.
fn at_message(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<(u64, u16)> {
    require(section, "block", "a block, from 1");
    require(section, key, "a message of the block: 0 the Env, 1 the first frag");
    let (mut block, mut message) = (None, None);
    section.whole_option("block", 1..=super::parse::MAX_BLOCKS, &mut block);
    section.whole_option(key, 0..=super::parse::MAX_FRAGS + 1, &mut message);
    block.zip(message)
}

/// Reads the nodes and the time of a fault of hosts.
///
/// A block begins at the time of its Env, not counting rebuilt blocks before it.
fn befallen(section: &mut Section<'_, '_, '_>, load: &LoadOptions) -> Option<(Who, Span)> {
    let who = who(section);
    let from = section.get("from_ms");
    let until = section.get("until_ms");
    let mut begins = |key: &'static str, beside: Option<&Value<'_>>| {
        let mut block: Option<u64> = None;
        section.whole_option(key, 1..=super::parse::MAX_BLOCKS, &mut block);
        if let (Some(value), true) = (section.get(key), beside.is_some()) {
            section.wrong(value, key, "alone, without the same in ms");
        }
        block.map(|block| (block - 1) * load.block_time())
    };
    let (from_block, until_block) = (begins("from_block", from), begins("until_block", until));
    let time = |value: Option<&Value<'_>>, key, absent| match value {
        None => Some(absent),
        Some(value) => {
            let ms = super::reader::number(value, &(0.0..=MAX_MS));
            if ms.is_none() {
                section.wrong(value, key, &super::reader::number_within(&(0.0..=MAX_MS)));
            }
            ms.map(|ms| (ms * MILLIS as f64).round() as Nanos)
        }
    };
    let (from, until_ms) = (time(from, "from_ms", 0), time(until, "until_ms", Nanos::MAX));
    let span = from_block.or(from).zip(until_block.or(until_ms));
    let (key, until) = match until {
        Some(value) => ("until_ms", Some(value)),
        None => ("until_block", section.get("until_block")),
    };
    if let (Some((start, end)), Some(value)) = (span, until)
        && start >= end
    {
        section.wrong(value, key, "after `from_ms`; leave it out for a fault that stays");
        return None;
    }
    who.zip(span)
}

fn who(section: &mut Section<'_, '_, '_>) -> Option<Who> {
    let given = ["share", "nodes", "places"].into_iter().filter(|key| section.has(key)).count();
    let mut share = f64::NAN;
    section.number("share", 0.0..=1.0, &mut share);
    let mut by_weight = false;
    section.flag("by_weight", &mut by_weight);
    let names = |value: &Value<'_>| value.get_ref().as_str().map(str::to_owned);
    let all = section.get("nodes").is_some_and(|value| value.get_ref().as_str() == Some("all"));
    let nodes = section.get("nodes").filter(|_| !all).map(|value| {
        let name = |item: &Value<'_>| match names(item) {
            Some(id) => Some(NodeName::Id(id)),
            None => whole(item, &(0..=MAX_NAMES as u64 - 1)).map(NodeName::Index),
        };
        listed(section, value, "nodes", "ids in quotes or numbers from 0", name)
    });
    let places = section
        .get("places")
        .map(|value| listed(section, value, "places", "names in quotes", names));
    if given != 1 {
        let message = "whom the fault befalls: one of `share`, `nodes` and `places`, and only one";
        section.problems.add_at(section.position(), message.into());
        return None;
    }
    match (nodes, places) {
        _ if all => Some(Who::All),
        (Some(nodes), _) => nodes.map(Who::Nodes),
        (_, Some(places)) => places.map(Who::Places),
        _ => (!share.is_nan()).then_some(Who::Share { share, by_weight }),
    }
}

/// A list that is not empty.
fn listed<T>(
    section: &Section<'_, '_, '_>,
    value: &Value<'_>,
    key: &str,
    of: &str,
    read: impl FnMut(&Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = value.get_ref().as_array().filter(|array| (1..=MAX_NAMES).contains(&array.len()));
    let list = items.and_then(|array| array.iter().map(read).collect());
    if list.is_none() {
        section.wrong(value, key, &format!("a list of {of}"));
    }
    list
}
