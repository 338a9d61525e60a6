//! How many peers a leader's message is handed to, and what a gateway is told when that is nobody.

use std::sync::atomic::{AtomicBool, Ordering};

use fragcast_turbine::net::Handle;
use fragcast_turbine::net::gossip::GossipHandle;
use fragcast_turbine::{Mode, Policy};
use serde::{Deserialize, Serialize};

/// What a gateway is told when nobody is connected.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Unreached {
    /// Its message is refused: it has not been sent, and may be posted again.
    #[default]
    Refuse,
    /// Its message is taken, and every answer says how many peers it was handed to.
    Tell,
}

/// Peers that a message is handed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// Connected over the overlay, if it is used.
    pub overlay: usize,
    /// Connected over gossip, if the message goes that way.
    pub gossip: usize,
}

impl Reached {
    /// Peers over either way; one that is connected over both counts twice.
    pub const fn total(&self) -> usize {
        self.overlay + self.gossip
    }
}

/// Whom a node can reach.
#[derive(Debug)]
pub struct Reach {
    net: Handle,
    gossip: Option<GossipHandle>,
    /// Whether peers beside the members are configured.
    outsiders: bool,
    tells: AtomicBool,
}

impl Reach {
    /// Of a running node; `outsiders`: it is configured with gossip peers beside the members.
    pub const fn new(
        net: Handle,
        gossip: Option<GossipHandle>,
        outsiders: bool,
        unreached: Unreached,
    ) -> Self {
        let tells = AtomicBool::new(matches!(unreached, Unreached::Tell));
        Self { net, gossip, outsiders, tells }
    }

    /// What a gateway is told when nobody is connected.
    pub fn policy(&self) -> Unreached {
        if self.tells.load(Ordering::Relaxed) { Unreached::Tell } else { Unreached::Refuse }
    }

    /// The same from now on.
    pub fn set_policy(&self, unreached: Unreached) {
        self.tells.store(unreached == Unreached::Tell, Ordering::Relaxed);
    }

    /// Whether there is anybody to be reached: a network may have one member, which is ready by
    /// itself.
    pub fn expects_somebody(&self) -> bool {
        self.outsiders || self.net.epochs().members().count() > 1
    }

    /// Whom a message is handed to now. A peer whose path has just broken counts until its
    /// connection times out.
    pub async fn now(&self) -> Reached {
        let net = self.net.snapshot();
        let overlay = if net.fallback.mode == Mode::Gossip { 0 } else { net.connected };
        let by_gossip = match net.fallback.mode {
            Mode::Turbine => false,
            Mode::Gossip => true,
            Mode::Auto => overlay == 0 || net.fallback.policy == Policy::Always,
        };
        let gossip = match &self.gossip {
            Some(gossip) if by_gossip => gossip.fresh_snapshot().await.connections,
            _ => 0,
        };
        Reached { overlay, gossip }
    }
}
