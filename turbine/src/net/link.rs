//! The link between the driver, which owns the protocol, and the task that speaks gossip.
//!
//! There are two tasks, because validating gossip recovers a signature for each message, and a peer
//! that floods gossip must not delay shreds. Both queues are bounded. Actions that find their queue
//! full wait in the protocol, which bounds their bytes and counts those that it drops; inputs that
//! find their queue full are dropped and counted by the gossip task.

use std::sync::Arc;

use fragcast_shredder::VerifiedMessage;
use tokio::sync::{mpsc, watch};

use crate::epoch::EpochsView;
use crate::gossip::{GossipAction, Listener};
use crate::protocol::Protocol;
use crate::time::Timestamp;

/// Actions in the queue: few, because each may hold a message of 10 MiB.
pub(super) const ACTIONS: usize = 16;
/// Inputs in the queue. Only messages that the gate has verified come this far, each once, and the
/// driver takes them between two bursts of shreds; more than a block's worth never waits.
pub(super) const INPUTS: usize = 1024;
/// Inputs that the driver takes at a time.
pub(super) const INPUTS_AT_ONCE: usize = 16;

/// An input of the gossip task to the protocol.
#[derive(Debug, Clone)]
pub enum GossipInput {
    /// A message that passed the gate.
    Message {
        /// The message.
        message: Box<VerifiedMessage>,
        /// Whether it is forwarded: not if its signature came with another v.
        forwarded: bool,
    },
    /// A peer has subscribed to our topics, or is gone.
    Listener(Listener, bool),
}

/// What the gossip task must know of the protocol to judge messages and choose its peers.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The blocks that the protocol takes, both ends included.
    pub window: (u64, u64),
    /// The epochs that live.
    pub epochs: Arc<EpochsView>,
    /// Whether a peer goes by another membership table, so that ours may be behind.
    pub behind: bool,
}

impl Outlook {
    fn of(now: Timestamp, protocol: &Protocol) -> Self {
        Self {
            window: protocol.gossip_window(now),
            epochs: Arc::clone(protocol.epochs()),
            behind: protocol.peers_elsewhere() > 0,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let epochs = self.epochs.has_same_epochs(&other.epochs);
        epochs && (self.window, self.behind) == (other.window, other.behind)
    }
}

/// The gossip task's end of the link. Whoever has no gossip drops it.
#[derive(Debug)]
pub struct GossipLink {
    /// The protocol's actions.
    pub actions: mpsc::Receiver<GossipAction>,
    /// Inputs to the protocol.
    pub inputs: mpsc::Sender<GossipInput>,
    /// What it must know of the protocol.
    pub outlook: watch::Receiver<Outlook>,
}

/// The driver's end.
pub(super) struct DriverLink {
    actions: mpsc::Sender<GossipAction>,
    inputs: mpsc::Receiver<GossipInput>,
    outlook: watch::Sender<Outlook>,
    /// Whether the other end still sends.
    open: bool,
    /// Whether actions found their queue full.
    blocked: bool,
    batch: Vec<GossipInput>,
}

/// Both ends.
pub(super) fn pair(protocol: &Protocol) -> (DriverLink, GossipLink) {
    let (actions, actions_rx) = mpsc::channel(ACTIONS);
    let (inputs_tx, inputs) = mpsc::channel(INPUTS);
    let (outlook, outlook_rx) = watch::channel(Outlook::of(Timestamp::default(), protocol));
    let driver = DriverLink {
        actions,
        inputs,
        outlook,
        open: true,
        blocked: false,
        batch: Vec::with_capacity(INPUTS_AT_ONCE),
    };
    (driver, GossipLink { actions: actions_rx, inputs: inputs_tx, outlook: outlook_rx })
}

impl DriverLink {
    /// Hands on the protocol's actions for gossip, as far as there is room, and its outlook.
    pub(super) fn drain(&mut self, now: Timestamp, protocol: &mut Protocol) {
        self.blocked = false;
        loop {
            let room = self.actions.try_reserve();
            if matches!(room, Err(mpsc::error::TrySendError::Full(()))) {
                self.blocked = true;
                break;
            }
            // Nobody is there: what the protocol wants is forgotten.
            let Some(action) = protocol.poll_gossip() else { break };
            if let Ok(permit) = room {
                permit.send(action);
            }
        }
        let outlook = Outlook::of(now, protocol);
        self.outlook.send_if_modified(|told| {
            let same = told.is_same(&outlook);
            *told = outlook;
            !same
        });
    }

    /// Resolves when something has come, or when there is room again for what waits.
    pub(super) async fn ready(&mut self) {
        let (actions, blocked) = (&self.actions, self.blocked);
        let room = async {
            match blocked {
                true => drop(actions.reserve().await),
                false => std::future::pending().await,
            }
        };
        let (inputs, batch) = (&mut self.inputs, &mut self.batch);
        tokio::select! {
            count = inputs.recv_many(batch, INPUTS_AT_ONCE), if self.open => {
                self.open = count > 0;
            }
            () = room => {}
        }
    }

    /// The inputs that have come, those that [`ready`](Self::ready) waited for and others, a few at
    /// a time.
    pub(super) fn take(&mut self) -> Vec<GossipInput> {
        let mut batch = Vec::with_capacity(INPUTS_AT_ONCE);
        batch.append(&mut self.batch);
        while batch.len() < INPUTS_AT_ONCE
            && let Ok(input) = self.inputs.try_recv()
        {
            batch.push(input);
        }
        batch
    }
}
