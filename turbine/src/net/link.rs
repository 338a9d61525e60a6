//! The link between the driver, which owns the protocol, and the task that speaks gossip.
//!
//! There are two tasks, because validating gossip recovers a signature for each message, and a peer
//! that floods gossip must not delay shreds. Both queues are bounded. Actions that find their queue
//! full wait in the protocol, which bounds their bytes and counts those that it drops; inputs that
//! find their queue full are dropped and counted by the gossip task.

use fragcast_shredder::VerifiedMessage;
use tokio::sync::{mpsc, watch};

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

/// The gossip task's end of the link. Whoever has no gossip drops it.
#[derive(Debug)]
pub struct GossipLink {
    /// The protocol's actions.
    pub actions: mpsc::Receiver<GossipAction>,
    /// Inputs to the protocol.
    pub inputs: mpsc::Sender<GossipInput>,
    /// The blocks that the protocol takes.
    pub window: watch::Receiver<(u64, u64)>,
}

/// The driver's end.
pub(super) struct DriverLink {
    actions: mpsc::Sender<GossipAction>,
    inputs: mpsc::Receiver<GossipInput>,
    window: watch::Sender<(u64, u64)>,
    /// Whether the other end still sends.
    open: bool,
    /// Whether actions found their queue full.
    blocked: bool,
    batch: Vec<GossipInput>,
}

/// Both ends.
pub(super) fn pair() -> (DriverLink, GossipLink) {
    let (actions, actions_rx) = mpsc::channel(ACTIONS);
    let (inputs_tx, inputs) = mpsc::channel(INPUTS);
    let (window, window_rx) = watch::channel((0, u64::MAX));
    let driver = DriverLink {
        actions,
        inputs,
        window,
        open: true,
        blocked: false,
        batch: Vec::with_capacity(INPUTS_AT_ONCE),
    };
    (driver, GossipLink { actions: actions_rx, inputs: inputs_tx, window: window_rx })
}

impl DriverLink {
    /// Hands on the protocol's actions for gossip, as far as there is room, and its window.
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
        let window = protocol.gossip_window(now);
        self.window.send_if_modified(|told| std::mem::replace(told, window) != window);
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
