//! The devnet's page, and its buttons: what the flags do, while blocks flow.
//!
//! The port listens on the loopback interface. `devnet_control` wants the key that the page was served
//! with, so that no page of another origin, which cannot read it, presses a button. What is asked for
//! waits for the loop that builds blocks, which alone changes the network.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::hex;
use anyhow::{Context, bail};
use fragcast_port::{Guard, Memory, Port, Service, Settings};
use fragcast_rpc::eth::EthConfig;
use jsonrpsee::RpcModule;
use jsonrpsee::types::ErrorObjectOwned;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::breaks::{Break, Breaks, Of};
use super::scene::{Fault, Scene};
use crate::lab::MAX_LOSS;
use crate::lab::local::{ExecutionFactory, LocalNetwork};
use crate::serve::live::hub::{Hub, Names};
use crate::serve::page::{self, Shows};

const NAMES: Names = Names {
    get: "devnet_live",
    subscribe: "devnet_subscribe",
    notification: "devnet_picture",
    unsubscribe: "devnet_unsubscribe",
};

/// Actions that may wait.
const WAITING: usize = 16;
/// A page that takes nothing for this long is closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the page's connections may hold.
const MEMORY: usize = 128 * 1024 * 1024;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub(super) enum Action {
    /// Every sender throws away this share of its shreds.
    Loss { share: f64 },
    /// Stops a node.
    Stop { node: usize },
    /// Starts it again.
    Start { node: usize },
    /// The node that leads dies without a word.
    KillLeader,
    /// Blocks all UDP.
    BlockUdp,
    /// Lets it pass again.
    HealUdp,
    /// The gateway builds nothing.
    Pause,
    /// It goes on.
    Resume,
    /// The open block gets a Seal whose roots are wrong, and is built again.
    BadSeal,
    /// The leader signs two contradictory sets of the newest block.
    Equivocate,
    /// A node's database finds its disk full.
    StoreFull(Of),
    /// A node's disk has little room left.
    DiskLow(Of),
    /// A fork comes that a node's build lacks.
    Fork(Of),
    /// A node is cut off.
    Isolate(Of),
    /// A node's uplink carries next to nothing.
    Choke(Of),
    /// Most of a node's shreds are lost.
    Lossy(Of),
    /// A node's registry does not answer.
    RegistryAway(Of),
    /// A node's delegation ends.
    DelegationEnding(Of),
    /// A node lacks blocks that nobody keeps.
    BlocksLost(Of),
    /// A node is a guest that nobody takes.
    GuestAlone(Of),
}

#[derive(Deserialize)]
struct Asked {
    key: String,
    #[serde(flatten)]
    action: Action,
}

type Answer = Result<String, String>;

/// An action, and who waits for what comes of it.
pub(super) type Request = (Action, oneshot::Sender<Answer>);

/// What the loop that builds blocks holds of the page.
pub(super) struct Desk {
    requests: mpsc::Receiver<Request>,
    scene: Arc<Scene>,
    /// Whether the gateway pauses.
    pub(super) paused: bool,
    /// Whether the next Seal is to be wrong.
    pub(super) bad_seal: bool,
    /// Nodes that were started anew: what they had of the open block is gone.
    pub(super) started: BTreeSet<usize>,
    breaks: Breaks,
}

/// The page's port and the task that makes its pictures.
pub(super) struct Buttons {
    address: SocketAddr,
    port: Port,
    pictures: JoinHandle<()>,
}

impl Buttons {
    /// Serves the page on a TCP port; 0: one of the system's choice.
    pub(super) fn open(port: u16) -> anyhow::Result<(Self, Desk)> {
        let listener =
            TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).with_context(|| {
                format!("cannot listen on TCP port {port} for the page (--page.port)")
            })?;
        let address = listener.local_addr()?;
        let mut key = [0; 16];
        getrandom::fill(&mut key).context("randomness of the operating system")?;
        let key = hex::encode(key);
        let (requests, waiting) = mpsc::channel(WAITING);
        let scene = Arc::<Scene>::default();
        let memory = Memory::new(MEMORY);
        let painted = Arc::clone(&scene);
        let hub = Hub::new(Box::new(move || painted.sections()), PATIENCE, Arc::clone(&memory));
        let mut methods = control(key.clone(), requests)?;
        methods.merge(hub.module(NAMES))?;
        let guard = Arc::new(Guard::new(&[], &[], None));
        let settings = Settings {
            name: "page",
            pages: Some(page::pages(Shows::Network, key)),
            ..EthConfig::default().port(memory, guard, None)
        };
        let here = tokio::runtime::Handle::current();
        let port = Port::open(listener, settings, Service::Rpc(methods.into()), &here)?;
        let pictures = tokio::spawn(hub.run());
        let desk = Desk {
            requests: waiting,
            scene,
            paused: false,
            bad_seal: false,
            started: BTreeSet::new(),
            breaks: Breaks::default(),
        };
        Ok((Self { address, port, pictures }, desk))
    }

    /// Where the page is.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Closes it.
    pub(super) async fn close(self) {
        self.pictures.abort();
        self.port.stop(Duration::from_secs(1)).await;
    }
}

fn control(key: String, requests: mpsc::Sender<Request>) -> anyhow::Result<RpcModule<()>> {
    let mut module = RpcModule::new(());
    let held = Arc::new((key, requests));
    module.register_async_method("devnet_control", move |params, _, _| {
        let held = Arc::clone(&held);
        let asked: Result<(Asked,), _> = params.parse();
        async move {
            let (Asked { key, action },) = asked?;
            let refused = |text: &str| ErrorObjectOwned::owned(-32_000, text, None::<()>);
            if key != held.0 {
                return Err(refused(
                    "the key is not the one that this devnet's page was served with",
                ));
            }
            let (reply, answer) = oneshot::channel();
            held.1
                .try_send((action, reply))
                .map_err(|_| refused("too much is asked for already, or the devnet ends"))?;
            match answer.await {
                Ok(Ok(text)) => Ok(text),
                Ok(Err(text)) => Err(refused(&text)),
                Err(_) => Err(refused("the devnet ends")),
            }
        }
    })?;
    Ok(module)
}

impl Desk {
    /// The next thing that is asked for; never, once the page is closed.
    pub(super) async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }

    /// Something that waits already.
    pub(super) fn waiting(&mut self) -> Option<Request> {
        self.requests.try_recv().ok()
    }

    /// Tells the page.
    pub(super) fn tell(&self, text: impl Into<String>) {
        self.scene.tell(text);
    }

    /// Shows the page how the network is.
    pub(super) fn look(&self, network: &LocalNetwork) {
        let seal = Fault {
            action: "bad-seal",
            label: "Send a wrong Seal",
            on: self.bad_seal.then_some(true),
        };
        let equivocate =
            Fault { action: "equivocate", label: "Let the leader equivocate", on: None };
        let faults = [seal, equivocate].into_iter().chain(self.breaks.faults());
        self.scene.look(network, self.paused, faults.collect());
    }

    /// Does what is asked for, and answers.
    pub(super) async fn act(
        &mut self,
        (action, reply): Request,
        block: u64,
        network: &mut LocalNetwork,
        execution: &ExecutionFactory,
    ) {
        let done = self.done(action, block, network, execution).await;
        if let Ok(text) = &done {
            self.tell(text.clone());
        }
        self.look(network);
        // Who asked may have gone.
        let _ = reply.send(done.map_err(|error| format!("{error:#}")));
    }

    async fn done(
        &mut self,
        action: Action,
        block: u64,
        network: &mut LocalNetwork,
        execution: &ExecutionFactory,
    ) -> anyhow::Result<String> {
        Ok(match action {
            Action::Loss { share } => {
                if !(0.0..=MAX_LOSS).contains(&share) {
                    bail!("the share is between 0 and {MAX_LOSS}");
                }
                network.set_loss(share);
                self.breaks.renew(network).await;
                format!("every node loses {:.0} % of its shreds", share * 100.0)
            }
            Action::Stop { node } => {
                if !network.stop_node(node, false) {
                    bail!("node {node} does not run");
                }
                format!("node {node} is stopped")
            }
            Action::Start { node } => {
                network.start_node(node, Some(execution)).await?;
                self.breaks.forget(node);
                self.started.insert(node);
                format!("node {node} is started again")
            }
            Action::KillLeader => {
                let leader = network.leader(block);
                if !network.stop_node(leader, true) {
                    bail!("node {leader}, which leads, does not run");
                }
                format!(
                    "node {leader}, which leads, is dead; start it again and its block is built anew"
                )
            }
            Action::BlockUdp => {
                network.fail_turbine(true);
                "no UDP packet passes".into()
            }
            Action::HealUdp => {
                network.fail_turbine(false);
                self.breaks.renew(network).await;
                "UDP passes again".into()
            }
            Action::Pause => {
                self.paused = true;
                "the gateway pauses".into()
            }
            Action::Resume => {
                self.paused = false;
                "the gateway goes on".into()
            }
            Action::BadSeal => {
                self.bad_seal = true;
                "the open block gets a wrong Seal and is built again".into()
            }
            Action::Equivocate => {
                network.equivocate().await?;
                "the leader signed two contradictory sets".into()
            }
            Action::StoreFull(of) => self.breaks.act(Break::StoreFull, of, network).await?,
            Action::DiskLow(of) => self.breaks.act(Break::DiskLow, of, network).await?,
            Action::Fork(of) => self.breaks.act(Break::Fork, of, network).await?,
            Action::Isolate(of) => self.breaks.act(Break::Isolate, of, network).await?,
            Action::Choke(of) => self.breaks.act(Break::Choke, of, network).await?,
            Action::Lossy(of) => self.breaks.act(Break::Lossy, of, network).await?,
            Action::RegistryAway(of) => self.breaks.act(Break::RegistryAway, of, network).await?,
            Action::DelegationEnding(of) => {
                self.breaks.act(Break::DelegationEnding, of, network).await?
            }
            Action::BlocksLost(of) => self.breaks.act(Break::BlocksLost, of, network).await?,
            Action::GuestAlone(of) => self.breaks.act(Break::GuestAlone, of, network).await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Action> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn actions_have_the_names_that_the_page_uses() {
        let script = include_str!("../../serve/page/network.js");
        for (text, action) in [
            (r#"{"action":"loss","share":0.1}"#, Action::Loss { share: 0.1 }),
            (r#"{"action":"stop","node":3}"#, Action::Stop { node: 3 }),
            (r#"{"action":"start","node":3}"#, Action::Start { node: 3 }),
            (r#"{"action":"kill-leader"}"#, Action::KillLeader),
            (r#"{"action":"block-udp"}"#, Action::BlockUdp),
            (r#"{"action":"heal-udp"}"#, Action::HealUdp),
            (r#"{"action":"pause"}"#, Action::Pause),
            (r#"{"action":"resume"}"#, Action::Resume),
        ] {
            assert_eq!(parsed(text), Some(action), "{text}");
            let name = text.split('"').nth(3).unwrap();
            assert!(script.contains(&format!("'{name}'")), "{name}");
        }
        assert_eq!(parsed(r#"{"action":"bad-seal"}"#), Some(Action::BadSeal));
        assert_eq!(parsed(r#"{"action":"burn"}"#), None);
    }

    #[tokio::test]
    async fn nothing_is_done_without_the_key() {
        let (requests, mut waiting) = mpsc::channel(1);
        let module = control("the key".into(), requests).unwrap();
        let ask = |key: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"devnet_control","params":[{{"action":"pause","key":"{key}"}}]}}"#
            )
        };
        let (refused, _) = module.raw_json_request(&ask("another"), 1).await.unwrap();
        assert!(refused.get().contains("the key is not the one"), "{refused}");
        assert!(waiting.try_recv().is_err());
        let answers = tokio::spawn(async move {
            let (action, reply) = waiting.recv().await.unwrap();
            reply.send(Ok("done".into())).unwrap();
            action
        });
        let (answer, _) = module.raw_json_request(&ask("the key"), 1).await.unwrap();
        assert!(answer.get().contains("\"done\""), "{answer}");
        assert_eq!(answers.await.unwrap(), Action::Pause);
    }
}
