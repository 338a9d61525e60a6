//! The devnet's gateway at work: it builds and posts blocks, and between two messages the loop does what
//! the page's buttons ask for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
use fragcast_execution::exec::Tx;
use fragcast_shredder::{BlockBuilder, Env, Message};
use tokio::time::Instant;

use super::DevnetArgs;
use super::buttons::Desk;
use super::churn::Churn;
use super::pool::Pool;
use super::report::View;
use crate::lab::local::{ExecutionFactory, LocalNetwork};

/// Time after which a message counts as missed.
pub(super) const GUARD: Duration = Duration::from_secs(120);
const FRAG_INTERVAL: Duration = Duration::from_millis(200);
/// How long a leader that is back waits for its peers, and pauses between two tries to post.
const BACK: Duration = Duration::from_secs(20);
const TRY: Duration = Duration::from_millis(200);
/// How long the verdict on a wrong Seal is waited for.
const VERDICT: Duration = Duration::from_secs(10);

/// What blocks are built with.
pub(super) struct Building<'a> {
    pub(super) args: &'a DevnetArgs,
    pub(super) network: &'a mut LocalNetwork,
    pub(super) pool: &'a Pool,
    pub(super) view: &'a View,
    pub(super) churn: Option<&'a mut Churn>,
    pub(super) execution: &'a ExecutionFactory,
    /// What the page asks for, if there is one.
    pub(super) desk: Option<&'a mut Desk>,
}

/// The block that is being built.
#[derive(Default)]
struct Open {
    number: u64,
    /// What was posted of it.
    messages: Vec<Message>,
    /// Users' transactions in it.
    users: Vec<Tx>,
}

/// Whether a block is done.
enum Built {
    Sealed,
    /// Its Seal was wrong: it is to be built again.
    Refused,
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Building<'_> {
    /// Builds and posts all blocks.
    pub(super) async fn run(mut self, chain: &DevnetConfig) -> anyhow::Result<()> {
        self.look();
        self.network.connected(GUARD * 3).await?;
        let mut gateway = DevnetGateway::new(chain, self.args.dialect)?;
        let mut clock = Clock { start: Instant::now(), fast: self.args.fast };
        for block in 0..self.args.blocks {
            let opened_at = FRAG_INTERVAL * u32::from(self.args.frags) * block as u32;
            self.until(&mut clock, opened_at, block + 1).await;
            if self.args.fail_turbine_at == Some(block) {
                self.network.fail_turbine(true);
                self.look();
            }
            if self.args.heal_at == Some(block) {
                self.network.fail_turbine(false);
                self.look();
            }
            let mut again: Vec<Tx> = Vec::new();
            let mut timestamp = unix_seconds();
            let number = loop {
                let env = gateway.open(timestamp)?;
                let number = env.number;
                self.pool.follow(&gateway);
                // The Env of a block that is built again must be another one.
                timestamp = env.timestamp + 1;
                if let Some(churn) = self.churn.as_deref_mut() {
                    churn.before(number, self.network, self.execution).await?;
                }
                let mut open = Open { number, ..Open::default() };
                let clock = (&mut clock, opened_at);
                match self.block(&mut gateway, env, &mut open, &again, clock).await? {
                    Built::Sealed => break number,
                    Built::Refused => again = open.users,
                }
            };
            if self.args.fast || block + 1 == self.args.blocks {
                // What is missing or not judged by then is told in the table.
                self.arrived(number).await;
                self.judged(number).await;
            }
        }
        Ok(())
    }

    /// Builds and posts a block. `again` are users' transactions that were in it before.
    async fn block(
        &mut self,
        gateway: &mut DevnetGateway,
        env: Env,
        open: &mut Open,
        again: &[Tx],
        (clock, opened_at): (&mut Clock, Duration),
    ) -> anyhow::Result<Built> {
        let (frags, number) = (usize::from(self.args.frags), open.number);
        self.send(open, Message::Env(env.clone())).await?;
        for frag in 0..frags {
            // Signed and executed while nothing waits for it, as a real gateway fills a frag as
            // it goes.
            let new = self.pool.waiting();
            let before: &[Tx] = if frag == 0 { again } else { &[] };
            let users: Vec<Tx> = before.iter().chain(&new).cloned().collect();
            let (message, outcomes) = tokio::task::block_in_place(|| {
                gateway.frag_with(&users, self.args.txs.into(), frag + 1 == frags)
            })?;
            self.pool.follow(gateway);
            self.pool.offered(&users, &outcomes);
            let included = users.iter().zip(&outcomes);
            let included =
                included.filter(|(_, o)| **o == fragcast_execution::devnet::Offered::Included);
            open.users.extend(included.map(|(tx, _)| tx.clone()));
            self.until(clock, opened_at + FRAG_INTERVAL * (frag as u32 + 1), number).await;
            self.send(open, Message::Frag(message)).await?;
            self.view.update(self.network);
            if let Some(churn) = self.churn.as_deref_mut() {
                churn.look(number, self.network);
            }
        }
        if self.desk.as_deref_mut().is_some_and(|desk| std::mem::take(&mut desk.bad_seal)) {
            self.refused_seal(env, open, frags as u64).await?;
            return Ok(Built::Refused);
        }
        let seal = tokio::task::block_in_place(|| gateway.seal())?;
        self.send(open, Message::Seal(seal)).await?;
        self.view.update(self.network);
        Ok(Built::Sealed)
    }

    /// Posts a Seal with none of the block's roots, and waits until it is judged.
    async fn refused_seal(&mut self, env: Env, open: &mut Open, frags: u64) -> anyhow::Result<()> {
        let number = open.number;
        let seal = BlockBuilder::from_env(env).with_dialect(self.args.dialect).seal_of(frags);
        self.send(open, Message::Seal(seal)).await?;
        self.network.judged(number, VERDICT).await;
        self.network.unjudge(number);
        if let Some(desk) = &self.desk {
            desk.tell(format!("block {number} had a wrong Seal and is built again"));
        }
        self.look();
        Ok(())
    }

    fn look(&self) {
        if let Some(desk) = &self.desk {
            desk.look(self.network);
        }
    }

    /// Waits until it is time, does what is asked for meanwhile, and goes on waiting while the gateway
    /// pauses. `block` is the one that is open, or the next.
    async fn until(&mut self, clock: &mut Clock, at: Duration, block: u64) {
        let Some(desk) = self.desk.as_deref_mut() else {
            if !clock.fast {
                tokio::time::sleep_until(clock.start + at).await;
            }
            return;
        };
        loop {
            let request = match (desk.paused, clock.fast) {
                (true, _) => {
                    let since = Instant::now();
                    let request = desk.next().await;
                    clock.start += since.elapsed();
                    request
                }
                (false, true) => match desk.waiting() {
                    Some(request) => request,
                    None => return,
                },
                (false, false) => tokio::select! {
                    () = tokio::time::sleep_until(clock.start + at) => return,
                    request = desk.next() => request,
                },
            };
            desk.act(request, block, self.network, self.execution).await;
        }
    }

    /// Posts a message of the open block. If its leader is away, it waits until that is back, and then
    /// posts all of the block again, which becomes its next attempt; if its leader was away, too.
    async fn send(&mut self, open: &mut Open, message: Message) -> anyhow::Result<()> {
        open.messages.push(message.clone());
        let leader = self.network.leader(open.number);
        if let (Some(desk), [_]) = (self.desk.as_deref_mut(), &open.messages[..]) {
            // It lacks nothing of a block that begins.
            desk.started.remove(&leader);
        }
        if self.lacks(leader) {
            return self.send_again(open, leader).await;
        }
        match self.network.post(message).await {
            Ok(()) => {}
            // What a button broke may come right again.
            Err(error) if self.desk.is_some() => self.insist(open, &error).await?,
            Err(error) => return Err(error),
        }
        if self.args.fast {
            // A message that never arrives is reported at the end; the others go on.
            self.arrived(open.number).await;
        }
        Ok(())
    }

    /// Whether a node is away, or has nothing of the open block because it was.
    fn lacks(&self, node: usize) -> bool {
        let started = self.desk.as_deref().is_some_and(|desk| desk.started.contains(&node));
        started || self.network.node(node).is_none()
    }

    /// Does what is asked for, or waits a moment.
    async fn rest(&mut self, block: u64) -> anyhow::Result<()> {
        let desk = self.desk.as_deref_mut().context("there is a page")?;
        tokio::select! {
            () = tokio::time::sleep(TRY) => {}
            request = desk.next() => desk.act(request, block, self.network, self.execution).await,
        }
        Ok(())
    }

    /// Posts the newest message of the block until it is taken.
    async fn insist(&mut self, open: &Open, error: &anyhow::Error) -> anyhow::Result<()> {
        let since = Instant::now();
        if let Some(desk) = &self.desk {
            desk.tell(format!("the leader does not take a message: {error:#}"));
        }
        let newest = open.messages.last().context("a message was posted")?.clone();
        loop {
            self.rest(open.number).await?;
            let leader = self.network.leader(open.number);
            if self.lacks(leader) {
                return self.send_again(open, leader).await;
            }
            match self.network.repost(newest.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if since.elapsed() > GUARD => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Posts all of the block anew, whatever happens to its leader meanwhile.
    async fn send_again(&mut self, open: &Open, leader: usize) -> anyhow::Result<()> {
        while !self.sent_again(open, leader).await? {}
        Ok(())
    }

    /// Waits until the leader is there and posts all of the block; false if it went away meanwhile.
    async fn sent_again(&mut self, open: &Open, leader: usize) -> anyhow::Result<bool> {
        let Some(desk) = self.desk.as_deref_mut() else {
            anyhow::bail!("node {leader}, which leads block {}, is stopped", open.number);
        };
        if self.network.node(leader).is_none() {
            desk.tell(format!(
                "node {leader} leads block {} and is away: the gateway waits",
                open.number
            ));
        }
        while self.network.node(leader).is_none() {
            let request = desk.next().await;
            desk.act(request, open.number, self.network, self.execution).await;
        }
        let reached = async {
            while self.network.node(leader).is_some_and(|node| {
                let state = node.state();
                let gossip = state.gossip.as_ref().map_or(0, |gossip| gossip.snapshot().members);
                state.net.snapshot().connected == 0 && gossip == 0
            }) {
                tokio::time::sleep(TRY / 10).await;
            }
        };
        let _ = tokio::time::timeout(BACK, reached).await;
        // From here on a start is one that ends this.
        desk.started.remove(&leader);
        desk.tell(format!("node {leader} is back: block {} is sent again", open.number));
        let since = Instant::now();
        for (n, message) in open.messages.iter().enumerate() {
            // The Env begins what was sent of the block anew.
            let mut posted = self.network.post(message.clone()).await;
            while let Err(error) = posted {
                if since.elapsed() > GUARD {
                    return Err(error.context(format!("message {n} of block {}", open.number)));
                }
                self.rest(open.number).await?;
                if self.lacks(leader) {
                    return Ok(false);
                }
                posted = self.network.repost(message.clone()).await;
            }
        }
        Ok(true)
    }

    /// Waits until all nodes that run have what was posted of a block.
    async fn arrived(&mut self, block: u64) {
        loop {
            let Some(desk) = self.desk.as_deref_mut() else {
                self.network.arrived(block, GUARD).await;
                return;
            };
            let request = tokio::select! {
                _ = self.network.arrived(block, GUARD) => return,
                request = desk.next() => request,
            };
            desk.act(request, block, self.network, self.execution).await;
        }
    }

    /// Waits until all nodes that run have judged a block.
    async fn judged(&mut self, block: u64) {
        loop {
            let Some(desk) = self.desk.as_deref_mut() else {
                self.network.judged(block, GUARD).await;
                return;
            };
            let request = tokio::select! {
                _ = self.network.judged(block, GUARD) => return,
                request = desk.next() => request,
            };
            desk.act(request, block, self.network, self.execution).await;
        }
    }
}

/// When frags are due: counted from a start that moves while the gateway pauses.
struct Clock {
    start: Instant,
    fast: bool,
}
