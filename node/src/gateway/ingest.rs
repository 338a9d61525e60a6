//! The gateway's interface: JSON-RPC `based_env`, `based_newFrag`, `based_sealFrag`. `GATEWAY.md`
//! describes it.
//!
//! A message must be signed by the gateway that the schedule names for the block, or by one of its
//! substitutes, where there are any and when their time has come. The signature may
//! have any form and goes out canonical. The answer is `"OK"` once every shred is queued, which
//! paces a gateway that is faster than the uplink. While nobody is connected over any way messages
//! are refused, or every answer tells how many peers there were ([`reach`](super::reach)).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::hex;
use fragcast_shredder::messages::json::{EnvJson, FragJson, JsonError, SealJson};
use fragcast_shredder::{
    Dialect, Message, MessageKey, Signature, SignatureError, SignedMessage, VerifiedMessage,
};
use fragcast_turbine::BroadcastError;
use fragcast_turbine::net::Handle;
use fragcast_turbine::output::{Delivered, Times, Via};
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::gateway::delegating::DelegationStatus;
use crate::gateway::journal::{Journal, JournalError};
use crate::gateway::order::{Leading, OrderError, Step};
use crate::gateway::reach::{Reach, Reached, Unreached};
use crate::log::{Limiter, Pace};

/// The parameter that a gateway posts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed<M> {
    signature: String,
    message: M,
}

/// Why a message was not taken. The codes are part of the interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The parameters do not parse.
    #[error("invalid params: {0}")]
    Params(String),
    /// It is of the other dialect, or out of bounds.
    #[error(transparent)]
    Message(#[from] JsonError),
    /// The signature is not 65 bytes of hex.
    #[error("the signature must be 65 bytes of hex")]
    SignatureForm,
    /// It is not signed by the scheduled gateway, nor by a substitute.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is out of order.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The gateway has not delegated to this node.
    #[error(
        "this node does not lead block {0}: no delegation of its gateway to this node's peer id and leader key covers it; put one into the network file, or see `delegation` in the status"
    )]
    NotLeader(u64),
    /// The journal forbids it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It is a substitute's, whose time has not come or is over.
    #[error("{reason}")]
    Substitute {
        /// Why it is not taken.
        reason: String,
        /// How long to wait, if that helps.
        wait: Option<Duration>,
        /// The rank of who has opened the block instead.
        overtaken_by: Option<u8>,
    },
    /// It could not be sent.
    #[error(transparent)]
    Broadcast(BroadcastError),
    /// There is nobody to send it to.
    #[error(
        "nobody is connected over the overlay or gossip, so the message was not sent: post it again \
         when /readyz of this node is well; leader.unreached = \"tell\" takes it all the same"
    )]
    Unreached,
}

impl IngestError {
    /// The JSON-RPC error code.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Params(_) | Self::Message(_) | Self::SignatureForm => -32602,
            Self::Signature(_) => -32001,
            Self::Order(_) => -32002,
            Self::NotLeader(_) => -32003,
            Self::Journal(_) => -32004,
            Self::Broadcast(_) | Self::Unreached => -32005,
            Self::Substitute { .. } => -32006,
        }
    }

    /// What it is counted as.
    pub const fn answer(&self) -> Answer {
        match self {
            Self::Params(_) | Self::SignatureForm => Answer::Malformed,
            Self::Message(_) => Answer::DialectOrBounds,
            Self::Signature(_) => Answer::Signature,
            Self::Order(_) => Answer::Order,
            Self::NotLeader(_) => Answer::NotLeader,
            Self::Journal(_) => Answer::Journal,
            Self::Broadcast(_) => Answer::Broadcast,
            Self::Substitute { .. } => Answer::Substitute,
            Self::Unreached => Answer::Unreached,
        }
    }
}

impl From<BroadcastError> for IngestError {
    fn from(error: BroadcastError) -> Self {
        let reason = error.to_string();
        match error {
            BroadcastError::NotLeader(block) => Self::NotLeader(block),
            BroadcastError::NotDue { wait, .. } => {
                Self::Substitute { reason, wait, overtaken_by: None }
            }
            BroadcastError::Overtaken { rank, .. } => {
                Self::Substitute { reason, wait: None, overtaken_by: Some(rank) }
            }
            other => Self::Broadcast(other),
        }
    }
}

/// An answer to the gateway, as it is counted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// The message was new, and was sent.
    Ok,
    /// The message had been sent before.
    Again,
    /// The parameters are no message.
    Malformed,
    /// The message is of another dialect, or exceeds a bound.
    DialectOrBounds,
    /// The signature is not the leading gateway's.
    Signature,
    /// The message does not follow from those before it.
    Order,
    /// This node does not lead the block.
    NotLeader,
    /// The journal forbids it.
    Journal,
    /// A substitute's time has not come, or is over.
    Substitute,
    /// It could not be sent.
    Broadcast,
    /// Nobody was connected.
    Unreached,
}

impl Answer {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl From<IngestError> for ErrorObjectOwned {
    fn from(error: IngestError) -> Self {
        let data = match &error {
            IngestError::Substitute { wait, overtaken_by, .. } => Some(json!({
                "waitMs": wait.map(|wait| wait.as_micros().div_ceil(1_000)),
                "overtakenBy": overtaken_by,
            })),
            _ => None,
        };
        Self::owned(error.code(), error.to_string(), data)
    }
}

/// Counters of answers to the gateway.
#[derive(Debug, Default)]
pub struct IngestStats([AtomicU64; Answer::ALL.len()]);

impl IngestStats {
    fn count(&self, answer: Answer) {
        self.0[answer as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let count = |answer: &Answer| self.0[*answer as usize].load(Ordering::Relaxed);
        Answer::ALL.iter().map(move |answer| (answer.name(), count(answer)))
    }
}

/// The leader's side of a node.
pub struct Ingest {
    dialect: Dialect,
    net: Handle,
    /// Messages that this node sends, for its own sequencer.
    own: mpsc::Sender<Arc<Delivered>>,
    state: Mutex<(Leading, Option<Journal>)>,
    reach: Arc<Reach>,
    /// Who has the gateway delegate to this node, if anybody.
    delegation: Option<Arc<DelegationStatus>>,
    /// Refusals are logged once a minute each.
    refusals: std::sync::Mutex<Limiter<(&'static str, Answer)>>,
    stats: Arc<IngestStats>,
}

impl Ingest {
    /// An ingest for the network of `net`; without a journal the node only follows.
    pub fn new(
        dialect: Dialect,
        net: Handle,
        own: mpsc::Sender<Arc<Delivered>>,
        journal: Option<Journal>,
        reach: Arc<Reach>,
        delegation: Option<Arc<DelegationStatus>>,
        stats: Arc<IngestStats>,
    ) -> Self {
        let state = Mutex::new((Leading::default(), journal));
        Self { dialect, net, own, state, reach, delegation, refusals: Default::default(), stats }
    }

    /// Takes a message; returns whom it was handed to, `None` if it was not new.
    ///
    /// A message that was sent must be committed, or its place would be given to another message,
    /// which is equivocation. So this runs in a task of its own, even if the gateway hangs up and
    /// the server drops the request.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn take(
        self: Arc<Self>,
        signed: SignedMessage,
    ) -> Result<Option<Reached>, IngestError> {
        let block = signed.message.block();
        // Before all epochs that this node knows nobody leads.
        let epochs = self.net.epochs();
        let epoch = epochs.at(block).ok_or(IngestError::NotLeader(block))?;
        let may_lead = epoch.schedule().ranked(block).map(|(_, gateway)| gateway);
        let message = signed.normalise_and_verify_among(may_lead)?;
        let ended = BroadcastError::Busy;
        tokio::spawn(async move { self.send(message).await }).await.map_err(|_| ended)?
    }

    async fn send(&self, message: VerifiedMessage) -> Result<Option<Reached>, IngestError> {
        let arrived = self.net.clock().now();
        let block = message.message().block();
        // One message at a time: their order is what is being decided.
        let mut state = self.state.lock().await;
        let (leading, journal) = &mut *state;
        let step = leading.check(&message)?;
        if matches!(step, Step::Again) {
            return Ok(None);
        }
        // Before the journal: what is not sent uses up no attempt.
        let reached = self.reach.now().await;
        if reached.total() == 0
            && self.reach.policy() == Unreached::Refuse
            && self.reach.expects_somebody()
        {
            return Err(IngestError::Unreached);
        }
        let key = match step {
            Step::Again => return Ok(None),
            Step::Send(key) => key,
            Step::Open => {
                let Some(journal) = journal else {
                    return Err(IngestError::NotLeader(block));
                };
                let lead = match self.net.lead(block, message.gateway()).await {
                    Ok(lead) => lead,
                    Err(error) => {
                        if let (BroadcastError::NotLeader(_), Some(delegation)) =
                            (&error, &self.delegation)
                        {
                            delegation.want(block);
                        }
                        return Err(error.into());
                    }
                };
                let attempt =
                    tokio::task::block_in_place(|| journal.next_attempt(block, lead.attempts()))?;
                MessageKey { block, attempt, message: 0 }
            }
        };
        let sent = self.net.broadcast(key, message.clone()).await?;
        leading.commit(key, &message);
        let times = Times { sent_at: Some(sent), first_shred_at: arrived, complete_at: arrived };
        let rank =
            self.net.epochs().at(block).map_or(0, |epoch| epoch.schedule().rank(key.attempt));
        let delivered = Delivered { key, message, times, via: Via::Own, rank };
        // The receiver ends only with the node.
        let _ = self.own.send(Arc::new(delivered)).await;
        Ok(Some(reached))
    }

    async fn call<M: DeserializeOwned>(
        self: &Arc<Self>,
        params: &Params<'_>,
        read: impl FnOnce(M) -> Result<Message, JsonError>,
    ) -> Result<Value, IngestError> {
        let parsed: Signed<M> = params.one().map_err(|error| {
            IngestError::Params(error.data().map_or_else(
                || error.message().to_owned(),
                |data| data.get().trim_matches('"').to_owned(),
            ))
        })?;
        let signature =
            hex::decode_to_array(&parsed.signature).map_err(|_| IngestError::SignatureForm)?;
        let message = read(parsed.message)?;
        let signed = SignedMessage::new(message, Signature::from_bytes(signature));
        let reached = Arc::clone(self).take(signed).await?;
        self.stats.count(if reached.is_some() { Answer::Ok } else { Answer::Again });
        Ok(match (self.reach.policy(), reached) {
            (Unreached::Refuse, _) => json!("OK"),
            (Unreached::Tell, Some(Reached { overlay, gossip })) => json!({
                "status": "OK",
                "peers": overlay + gossip,
                "overlay": overlay,
                "gossip": gossip,
            }),
            (Unreached::Tell, None) => json!({ "status": "OK", "again": true }),
        })
    }

    fn answer(
        &self,
        method: &'static str,
        result: Result<Value, IngestError>,
    ) -> Result<Value, ErrorObjectOwned> {
        result.map_err(|error| {
            self.stats.count(error.answer());
            let kind = (method, error.answer());
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(left_out) = refusals.pass(kind, Pace::MINUTE, Instant::now()) {
                tracing::warn!(method, %error, left_out, "refused a message of the gateway");
            }
            error.into()
        })
    }

    /// The JSON-RPC module with the three methods.
    pub fn module(self) -> RpcModule<Self> {
        let mut module = RpcModule::new(self);
        let registered = module
            .register_async_method("based_env", |params, me, _| async move {
                me.answer("based_env", me.call(&params, EnvJson::into_message).await)
            })
            .and(Ok(()))
            .and_then(|()| {
                module
                    .register_async_method("based_newFrag", |params, me, _| async move {
                        let read = |m: FragJson| m.into_message(me.dialect);
                        me.answer("based_newFrag", me.call(&params, read).await)
                    })
                    .and(Ok(()))
            })
            .and_then(|()| {
                module
                    .register_async_method("based_sealFrag", |params, me, _| async move {
                        let read = |m: SealJson| m.into_message(me.dialect);
                        me.answer("based_sealFrag", me.call(&params, read).await)
                    })
                    .and(Ok(()))
            });
        registered.expect("three different names");
        module
    }
}

/// The method and parameter for a message, as gateways post it.
pub fn request(message: &VerifiedMessage) -> (&'static str, serde_json::Value) {
    fragcast_shredder::messages::json::request(message.message(), message.signature())
}
