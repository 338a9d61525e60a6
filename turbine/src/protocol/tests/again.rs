//! An application that loses what it was handed, in virtual time: it is handed it again.

use std::collections::BTreeMap;

use super::network::{Net, config};
use super::*;
use crate::output::Output;
use crate::sequencer::Sequencer;

/// The node whose application loses things; it leads nothing.
const LAST: usize = 4;
/// Messages of a block.
const LEN: u16 = 5;
/// How often the application tells whether it has something to do.
const LOOK: Duration = Duration::from_millis(100);

fn direct() -> Config {
    config(RoutePolicy::Fixed(Route::Direct), 0.0)
}

/// An application behind a sequencer that executes blocks one after another, takes nothing too far
/// ahead, and loses what `loses` names.
struct App {
    sequencer: Sequencer,
    ahead: u64,
    head: u64,
    /// Attempt, and how many messages in a row from the Env on.
    blocks: BTreeMap<u64, (u8, u16)>,
    /// What it has seen of its node's events.
    seen: (usize, usize),
    /// Fifths of the times at which it tells whether it has something to do.
    looks: u32,
    /// Messages that it was handed again, by block.
    again: BTreeMap<u64, usize>,
    /// Messages of blocks that it has not executed, at most.
    most: usize,
}

impl App {
    fn new(config: &Config) -> Self {
        Self {
            sequencer: Sequencer::default(),
            ahead: config.catch_up.ahead,
            head: 0,
            blocks: BTreeMap::new(),
            seen: (0, 0),
            looks: 0,
            again: BTreeMap::new(),
            most: 0,
        }
    }

    fn take(&mut self, output: &Output) {
        let Output::Message(delivered) = output else { return };
        let MessageKey { block, attempt, message } = delivered.key;
        if block > self.head + self.ahead || block <= self.head {
            return;
        }
        match self.blocks.get_mut(&block) {
            Some((of, next)) if *of == attempt => *next += u16::from(*next == message),
            _ if message == 0 => drop(self.blocks.insert(block, (attempt, 1))),
            _ => {}
        }
        let open = self.blocks.range(self.head + 1..).map(|(_, (_, next))| usize::from(*next));
        self.most = self.most.max(open.sum());
    }

    /// Takes what its node hands on, but for what is lost.
    fn run(&mut self, net: &mut Net, loses: &mut dyn FnMut(MessageKey) -> bool) {
        let mut outputs = Vec::new();
        for delivered in &net.delivered[LAST][self.seen.0..] {
            self.sequencer.push(delivered.clone(), &mut outputs);
        }
        for event in &net.others[LAST][self.seen.1..] {
            let Event::Again(delivered) = event else { continue };
            *self.again.entry(delivered.key.block).or_default() += 1;
            outputs.extend(self.sequencer.again(delivered.clone()));
        }
        self.seen = (net.delivered[LAST].len(), net.others[LAST].len());
        for output in outputs {
            let lost = match &output {
                Output::Message(delivered) => loses(delivered.key),
                Output::Retracted { .. } => false,
            };
            if !lost {
                self.take(&output);
            }
        }
        let before = self.head;
        while self.blocks.get(&(self.head + 1)).is_some_and(|(_, next)| *next == LEN) {
            self.head += 1;
        }
        if self.head > before {
            let now = net.now;
            net.nodes[LAST].handle_verified(now, self.head, Timestamp::default());
        }
    }

    /// Lets time pass, and tells all the while that there is nothing to do.
    fn live(&mut self, net: &mut Net, time: Duration, loses: &mut dyn FnMut(MessageKey) -> bool) {
        let end = net.now + time;
        while net.now < end {
            net.run_for(LOOK / 5);
            self.run(net, loses);
            self.looks += 1;
            if self.looks.is_multiple_of(5) {
                let now = net.now;
                net.nodes[LAST].handle_idle(now, true);
            }
        }
    }

    /// Lives until `head`; how long that took.
    fn until(&mut self, net: &mut Net, head: u64) -> Duration {
        let start = net.now;
        while self.head < head {
            assert!(net.now.since(start) < Duration::from_secs(60), "it stands at {}", self.head);
            self.live(net, LOOK, &mut |_| false);
        }
        net.now.since(start)
    }
}

/// Five nodes, three gateways, and the application of the last at its start.
fn start(config: &Config) -> (Net, App) {
    let mut net = Net::new(World::new(&[1; 5], 3), 0.0, config);
    let now = net.now;
    net.nodes[LAST].handle_verified(now, 0, Timestamp::default());
    net.nodes[LAST].handle_idle(now, true);
    (net, App::new(config))
}

/// Blocks of three frags, one in 40 ms.
fn blocks(
    net: &mut Net,
    app: &mut App,
    numbers: std::ops::RangeInclusive<u64>,
    loses: &mut dyn FnMut(MessageKey) -> bool,
) {
    for number in numbers {
        net.send(env(number), 0);
        (0..3).for_each(|seq| net.send(frag(number, seq, 500), 0));
        net.send(seal(number, 3), 0);
        app.live(net, Duration::from_millis(40), loses);
    }
}

fn requests(net: &Net) -> u64 {
    net.nodes[LAST].counters().blocks_requested
}

#[test]
fn what_the_application_lost_it_is_handed_again_from_here() {
    let (mut net, mut app) = start(&direct());
    blocks(&mut net, &mut app, 1..=3, &mut |_| false);
    // Its queue is full for a while: whole blocks, and parts.
    blocks(&mut net, &mut app, 4..=8, &mut |key| key.block != 6 || key.message > 1);
    blocks(&mut net, &mut app, 9..=10, &mut |_| false);
    assert_eq!(app.head, 3);
    let took = app.until(&mut net, 10);
    assert!(took < Duration::from_secs(2), "{took:?}");
    // That it has stood for long is no reason to be quick the next time.
    blocks(&mut net, &mut app, 11..=12, &mut |key| key.message == 4 && key.block == 11);
    assert_eq!(app.head, 10);
    app.until(&mut net, 12);
    assert_eq!(requests(&net), 0, "nobody was asked");
    assert_eq!(net.nodes[LAST].counters().handed_again, app.again.values().sum::<usize>() as u64);
}

#[test]
fn hundreds_of_lost_blocks_come_back_as_the_head_moves_and_within_bounds() {
    let mut config = direct();
    config.catch_up.ahead = 8;
    let (mut net, mut app) = start(&config);
    blocks(&mut net, &mut app, 1..=2, &mut |_| false);
    blocks(&mut net, &mut app, 3..=202, &mut |_| true);
    app.most = 0;
    let took = app.until(&mut net, 202);
    // Once its patience is over, the rest follows without any more of it.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(app.most <= 8 * usize::from(LEN), "{}", app.most);
    assert_eq!(requests(&net), 0);
}

#[test]
fn what_comes_too_far_ahead_is_handed_on_as_the_head_moves() {
    let mut config = direct();
    config.catch_up.ahead = 4;
    let (mut net, mut app) = start(&config);
    // Block 1 takes it long: it is at work, and what comes meanwhile does not fit.
    let at_work = |net: &mut Net, app: &mut App, number| {
        blocks(net, app, number..=number, &mut |key| key.block == 1);
        let now = net.now;
        net.nodes[LAST].handle_idle(now, false);
    };
    (1..=12).for_each(|number| at_work(&mut net, &mut app, number));
    assert!(app.head == 0 && app.blocks.keys().eq(&[2, 3, 4]), "{:?}", app.blocks);
    assert_eq!(net.nodes[LAST].counters().handed_again, 0);
    app.blocks.insert(1, (0, LEN));
    app.run(&mut net, &mut |_| false);
    assert_eq!(app.head, 4);
    // Without any patience, and nothing that it had.
    net.run_for(Duration::from_millis(1));
    app.run(&mut net, &mut |_| false);
    net.run_for(Duration::from_millis(1));
    app.run(&mut net, &mut |_| false);
    assert_eq!((app.head, app.again.keys().min()), (12, Some(&5)));
    blocks(&mut net, &mut app, 13..=14, &mut |_| false);
    assert_eq!((app.head, app.again.keys().max()), (14, Some(&12)));
}

#[test]
fn what_is_not_kept_any_more_is_asked_of_peers_again() {
    let long = direct();
    let (mut net, mut app) = start(&long);
    let mut short = long;
    short.catch_up.blocks = 4;
    net.replace(LAST, short);
    net.run_for(Duration::from_millis(100));
    let now = net.now;
    net.nodes[LAST].handle_verified(now, 0, Timestamp::default());
    blocks(&mut net, &mut app, 1..=2, &mut |_| false);
    assert_eq!(requests(&net), 0);
    blocks(&mut net, &mut app, 3..=40, &mut |_| true);
    let took = app.until(&mut net, 40);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(requests(&net) > 0);
    assert!(net.nodes[LAST].parts.archive.newest(20).is_empty(), "there is no room for it");
}

#[test]
fn an_application_that_loses_at_random_gets_everything_in_the_end() {
    let mut config = direct();
    config.catch_up.ahead = 6;
    let (mut net, mut app) = start(&config);
    let mut state = 7_u64;
    let mut loses = move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).is_multiple_of(6)
    };
    blocks(&mut net, &mut app, 1..=60, &mut loses);
    app.live(&mut net, Duration::from_secs(300), &mut loses);
    assert_eq!(app.head, 60);
}

#[test]
fn who_is_at_work_or_level_is_handed_nothing_and_who_stands_ever_more_seldom() {
    let (mut net, mut app) = start(&direct());
    blocks(&mut net, &mut app, 1..=3, &mut |_| false);
    app.live(&mut net, Duration::from_secs(30), &mut |_| false);
    assert_eq!(net.nodes[LAST].counters().handed_again, 0, "level");
    blocks(&mut net, &mut app, 4..=4, &mut |_| true);
    for _ in 0..100 {
        net.run_for(LOOK);
        let now = net.now;
        net.nodes[LAST].handle_idle(now, false);
    }
    assert_eq!(net.nodes[LAST].counters().handed_again, 0, "at work");
    app.live(&mut net, Duration::from_millis(62_000), &mut |_| true);
    // After 1, 3, 7, 15 seconds, and then every eight.
    assert_eq!(app.again, BTreeMap::from([(4, 9 * usize::from(LEN))]));
}

#[test]
fn who_says_nothing_of_itself_or_keeps_nothing_is_handed_nothing() {
    let mut none = direct();
    none.catch_up.memory = 0;
    for (config, tells) in [(direct(), false), (none, true)] {
        let mut net = Net::new(World::new(&[1; 5], 3), 0.0, &config);
        let now = net.now;
        net.nodes[LAST].handle_verified(now, 0, Timestamp::default());
        for number in 1..=80 {
            net.send(env(number), 0);
            net.send(seal(number, 0), 0);
            net.run_for(Duration::from_millis(40));
            let now = net.now;
            if tells {
                net.nodes[LAST].handle_idle(now, true);
            }
        }
        net.nodes[LAST].handle_verified(net.now, 60, Timestamp::default());
        net.run_for(Duration::from_millis(100));
        assert_eq!(net.nodes[LAST].counters().handed_again, 0, "tells: {tells}");
    }
}

/// A leader reopens a block of which the application has lost the first attempt.
#[test]
fn of_a_block_that_was_opened_again_the_newest_attempt_is_handed() {
    let (mut net, mut app) = start(&direct());
    blocks(&mut net, &mut app, 1..=2, &mut |_| false);
    blocks(&mut net, &mut app, 3..=3, &mut |_| true);
    net.send(env_message(3, 99), 1);
    app.live(&mut net, Duration::from_millis(40), &mut |_| true);
    // The old one counts no more, and the new one is not whole.
    app.live(&mut net, Duration::from_secs(4), &mut |_| false);
    assert_eq!(app.blocks.get(&3), Some(&(1, 1)));
    (0..3).for_each(|seq| net.send(frag(3, seq, 700), 1));
    net.send(seal(3, 3), 1);
    app.until(&mut net, 3);
    assert_eq!(app.blocks[&3], (1, LEN));
}
