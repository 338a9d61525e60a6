//! What the protocols of a network start with.

use std::sync::Arc;

use ed25519_dalek::SigningKey;

use super::Protocol;
use super::config::Config;
use super::epochs::Epochs;
use crate::delegation::SignedDelegation;
use crate::epoch::{Epoch, EpochError};
use crate::membership::Membership;
use crate::peer::PeerId;
use crate::schedule::Schedule;

/// Why a protocol cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// This node is in no table; see [`Setup::guest`].
    #[error("{0} is not in the membership table: add its record to the network file")]
    NotAMember(PeerId),
    /// The epochs.
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// The common start of all nodes of a network: checked once, and shared by all protocols that a
/// driver runs. A simulation of thousands of nodes would otherwise verify the same delegations and
/// hold the same plans thousands of times.
#[derive(Debug, Clone)]
pub struct Setup {
    config: Config,
    epochs: Epochs,
}

impl Setup {
    /// A network with one epoch, from block 0 on. Checks the delegations; of several with the
    /// same sequence the first counts.
    ///
    /// # Errors
    /// [`SetupError::Epoch`].
    pub fn new(
        config: Config,
        members: Arc<Membership>,
        schedule: Schedule,
        delegations: impl IntoIterator<Item = SignedDelegation>,
    ) -> Result<Self, SetupError> {
        let epoch = Epoch::new(config.chain_id, 0, members, schedule, delegations)?;
        Self::of(config, [epoch])
    }

    /// A network with the epochs that live now, oldest first: for nodes that start near the end
    /// of one, or that join with the next.
    ///
    /// # Errors
    /// [`SetupError::Epoch`].
    pub fn of(config: Config, epochs: impl IntoIterator<Item = Epoch>) -> Result<Self, SetupError> {
        let epochs = Epochs::new(config.chain_id, epochs.into_iter().collect())?;
        Ok(Self { config, epochs })
    }

    /// The protocol of member `me`, which leads with `leader` where a delegation says so.
    ///
    /// # Errors
    /// [`SetupError::NotAMember`].
    pub fn node(&self, me: &PeerId, leader: Option<SigningKey>) -> Result<Protocol, SetupError> {
        if self.epochs.view().peers().key(me).is_none() {
            return Err(SetupError::NotAMember(*me));
        }
        Ok(self.guest(me, leader))
    }

    /// The protocol of `me`, whom no table need name: then it is a guest of members that it calls,
    /// until an epoch has it as a member.
    pub fn guest(&self, me: &PeerId, leader: Option<SigningKey>) -> Protocol {
        let (epochs, key) = self.epochs.of_node(*me);
        Protocol::start(self.config.clone(), epochs, key, leader)
    }
}
