//! What the rest of the node holds of a running driver: commands in, numbers out.

use std::net::SocketAddr;
use std::sync::Arc;

use alloy_primitives::Address;
use fragcast_shredder::{EquivocationProof, MessageKey, VerifiedMessage};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Clock, Snapshot};
use crate::delegation::{DelegationError, SignedDelegation};
use crate::epoch::{Epoch, EpochError, EpochsView};
use crate::gossip::{Mode, Policy};
use crate::peer::PeerId;
use crate::protocol::BroadcastError;
use crate::rotation::Support;
use crate::schedule::Lead;
use crate::tables::Weights;
use crate::time::Timestamp;

/// Why an epoch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochRefused {
    /// The driver has ended.
    #[error("the driver has ended")]
    Ended,
    /// The protocol refuses it.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// Why a delegation was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DelegationRefused {
    /// The driver has ended.
    #[error("the driver has ended")]
    Ended,
    /// The protocol refuses it.
    #[error(transparent)]
    Delegation(#[from] DelegationError),
}

/// Answer to a broadcast: when it was queued whole.
pub type BroadcastReply = Result<Timestamp, BroadcastError>;

/// A message of this node's own, and who waits for its fate.
pub(super) struct Broadcast {
    pub(super) key: MessageKey,
    pub(super) message: Box<VerifiedMessage>,
    pub(super) reply: oneshot::Sender<BroadcastReply>,
}

/// What a handle asks of the driver.
pub(super) enum Command {
    Broadcast(Broadcast),
    Epoch { epoch: Box<Epoch>, instead: bool, reply: oneshot::Sender<Result<(), EpochError>> },
    Support(Vec<Address>, oneshot::Sender<Support>),
    Weights(Arc<Weights>, u64),
    Call(PeerId, Vec<SocketAddr>, oneshot::Sender<bool>),
    CallOff(PeerId),
    Head(u64),
    Verified(u64, Timestamp),
    Idle(bool),
    Lead(u64, Address, oneshot::Sender<Result<Lead, BroadcastError>>),
    Leads(u64, oneshot::Sender<bool>),
    Held(MessageKey, oneshot::Sender<bool>),
    Delegation(Box<SignedDelegation>, oneshot::Sender<Result<(), DelegationError>>),
    Proof(Box<EquivocationProof>, oneshot::Sender<bool>),
    Choke(Option<u64>),
    Mode(Mode),
    Policy(Policy),
    Shutdown,
}

/// Controls a running driver. When the last handle is gone, the driver ends.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) snapshot: watch::Receiver<Snapshot>,
    pub(super) epochs: watch::Receiver<Arc<EpochsView>>,
    pub(super) clock: Clock,
    pub(super) local: SocketAddr,
}

impl Handle {
    /// Broadcasts a message of this node's own; waits while the lanes are full.
    ///
    /// # Errors
    /// [`BroadcastError`]; `Busy` only if the driver has ended or too many wait already.
    pub async fn broadcast(&self, key: MessageKey, message: VerifiedMessage) -> BroadcastReply {
        let (reply, answer) = oneshot::channel();
        let broadcast = Broadcast { key, message: Box::new(message), reply };
        self.commands
            .send(Command::Broadcast(broadcast))
            .await
            .map_err(|_| BroadcastError::Busy)?;
        answer.await.unwrap_or(Err(BroadcastError::Busy))
    }

    /// Ends the driver, whoever else holds a handle.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown).await;
    }

    /// By what right this node leads `block` for a gateway at this moment; see
    /// [`Protocol::lead`](crate::Protocol::lead).
    ///
    /// # Errors
    /// [`BroadcastError`]; `Busy` if the driver has ended.
    pub async fn lead(&self, block: u64, gateway: Address) -> Result<Lead, BroadcastError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Lead(block, gateway, reply)).await;
        sent.map_err(|_| BroadcastError::Busy)?;
        answer.await.unwrap_or(Err(BroadcastError::Busy))
    }

    /// Whether this node leads `block` by the schedule.
    pub async fn leads(&self, block: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Leads(block, reply)).await;
        sent.is_ok() && answer.await.unwrap_or(false)
    }

    /// Learns a delegation and tells it to all peers; see
    /// [`Protocol::handle_delegation`](crate::Protocol::handle_delegation).
    ///
    /// # Errors
    /// [`DelegationRefused`].
    pub async fn delegation(&self, signed: SignedDelegation) -> Result<(), DelegationRefused> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Delegation(Box::new(signed), reply);
        self.commands.send(command).await.map_err(|_| DelegationRefused::Ended)?;
        answer.await.map_err(|_| DelegationRefused::Ended)?.map_err(DelegationRefused::Delegation)
    }

    /// Waits until the next leader has acknowledged a message of this node's. `false` if nobody is
    /// asked to, or the driver ends before.
    pub async fn held(&self, key: MessageKey) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Held(key, reply)).await;
        sent.is_ok() && answer.await.unwrap_or(false)
    }

    /// Another epoch holds from its first block on: its members are called, and let in, from now
    /// on, and those that no living epoch names any more are disconnected.
    ///
    /// # Errors
    /// [`EpochRefused`]; nothing has changed then.
    pub async fn epoch(&self, epoch: Epoch) -> Result<(), EpochRefused> {
        self.take_epoch(epoch, false).await
    }

    /// The same, in place of the epochs that have not begun; see
    /// [`Protocol::handle_epoch_instead`](crate::Protocol::handle_epoch_instead).
    ///
    /// # Errors
    /// [`EpochRefused`]; nothing has changed then.
    pub async fn epoch_instead(&self, epoch: Epoch) -> Result<(), EpochRefused> {
        self.take_epoch(epoch, true).await
    }

    /// Where the chain stands, and from which block on peers go by these gateways; `None` if the
    /// driver has ended.
    pub async fn support(&self, gateways: Vec<Address>) -> Option<Support> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Support(gateways, reply)).await.ok()?;
        answer.await.ok()
    }

    /// The weights of members that count from now on, and the block at which they were read; see
    /// [`Protocol::set_weights`](crate::Protocol::set_weights).
    pub async fn set_weights(&self, weights: Arc<Weights>, block: u64) {
        let _ = self.commands.send(Command::Weights(weights, block)).await;
    }

    /// Calls a peer at these addresses, eight at most, and keeps calling it while it is not connected:
    /// a *contact*, if no table names it, else a member whose record need not say where it is. Says
    /// whether it is called: not beyond [`MAX_CONTACTS`](crate::peer::MAX_CONTACTS), nor if it is
    /// this node.
    pub async fn call(&self, peer: PeerId, addresses: Vec<SocketAddr>) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Call(peer, addresses, reply)).await;
        sent.is_ok() && answer.await.unwrap_or(false)
    }

    /// Calls a contact no more, and hangs up. A member that was called is a member as any other.
    pub async fn call_off(&self, peer: PeerId) {
        let _ = self.commands.send(Command::CallOff(peer)).await;
    }

    async fn take_epoch(&self, epoch: Epoch, instead: bool) -> Result<(), EpochRefused> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Epoch { epoch: Box::new(epoch), instead, reply };
        self.commands.send(command).await.map_err(|_| EpochRefused::Ended)?;
        answer.await.map_err(|_| EpochRefused::Ended)?.map_err(EpochRefused::Epoch)
    }

    /// The epochs that live, to be asked by block. Whoever asks several questions about one block
    /// asks one view.
    pub fn epochs(&self) -> Arc<EpochsView> {
        Arc::clone(&self.epochs.borrow())
    }

    /// The same, for those who must know when it changes.
    pub fn watch_epochs(&self) -> watch::Receiver<Arc<EpochsView>> {
        self.epochs.clone()
    }

    /// Tells the protocol which block the application has verified last, and when it was built by
    /// the chain's clock; see [`Protocol::handle_verified`](crate::Protocol::handle_verified).
    pub async fn verified(&self, block: u64, built_at: Timestamp) {
        let _ = self.commands.send(Command::Verified(block, built_at)).await;
    }

    /// Tells the protocol whether the application has nothing to do; see
    /// [`Protocol::handle_idle`](crate::Protocol::handle_idle).
    pub async fn idle(&self, idle: bool) {
        let _ = self.commands.send(Command::Idle(idle)).await;
    }

    /// The operator says where the chain's head is.
    pub async fn head(&self, block: u64) {
        let _ = self.commands.send(Command::Head(block)).await;
    }

    /// Hands in proof that a leader signed two contradictory things; all peers are told. Says whether it
    /// is true, of the leader of its block, and new to this node.
    pub async fn proof(&self, proof: EquivocationProof) -> bool {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Proof(Box::new(proof), reply)).await;
        answer.await.unwrap_or(false)
    }

    /// For experiments: from now on this node's uplink carries so few bits a second, and what its lanes
    /// have no room for is dropped; `None`: as configured.
    pub async fn choke(&self, bits_per_second: Option<u64>) {
        let _ = self.commands.send(Command::Choke(bits_per_second)).await;
    }

    /// The operator says which way messages travel.
    pub async fn set_mode(&self, mode: Mode) {
        let _ = self.commands.send(Command::Mode(mode)).await;
    }

    /// The operator says how much this node has to do with gossip; to and from
    /// [`Policy::Off`] only a restart leads.
    pub async fn set_policy(&self, policy: Policy) {
        let _ = self.commands.send(Command::Policy(policy)).await;
    }

    /// The newest numbers.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Waits until the numbers are as `fine` says; `None` if the driver ends before that.
    pub async fn wait_for(&self, fine: impl FnMut(&Snapshot) -> bool) -> Option<Snapshot> {
        let mut snapshots = self.snapshot.clone();
        let found = snapshots.wait_for(fine).await;
        found.ok().map(|snapshot| snapshot.clone())
    }

    /// The driver's clock.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The UDP address it listens on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
