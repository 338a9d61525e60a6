use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fragcast_shredder::Kind;
use proptest::prelude::*;

use super::*;
use crate::fault::Fault;
use crate::topology::build;
use crate::world::sample::line;
use crate::{NodeId, SECONDS};

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(text, "t.toml", Path::new("/nowhere"))
}

/// Adds the keys that every file must have.
fn with_head(text: &str) -> String {
    format!("name = \"t\"\ndescription = \"a test\"\n{text}")
}

fn good(text: &str) -> Scenario {
    parse(&with_head(text)).unwrap()
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn runs(text: &str, world: &World) -> Vec<Run> {
    good(text).load(world).unwrap()
}

/// A row for each broadcast: (ms, leader, block, attempt, message, expected, equivocal).
type Row = (u64, NodeId, u64, u8, u16, bool, bool);

fn rows(load: &Load) -> Vec<Row> {
    let row = |b: &crate::load::Broadcast| {
        let key = b.key;
        (b.at / MILLIS, b.leader, key.block, key.attempt, key.message, b.expected, b.equivocal)
    };
    load.broadcasts.iter().map(row).collect()
}

#[test]
fn every_file_parses_and_resolves_in_its_own_world() {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(scenarios()).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let world = build(&scenario.world()).unwrap().world;
        let runs = scenario.load(&world).unwrap_or_else(|e| panic!("{e}"));
        for Run { load, faults } in &runs {
            assert!(load.broadcasts.iter().any(|b| b.expected), "{}", path.display());
            let honest = |b: &crate::load::Broadcast| {
                load.ranked(b.key.block).iter().any(|(leader, _)| *leader == b.leader)
            };
            assert!(load.broadcasts.iter().all(honest), "{}", path.display());
            assert!(load.broadcasts.is_sorted_by_key(|b| b.at), "{}", path.display());
            assert!(faults.crashed().len() < world.len());
        }
        assert_eq!(scenario.load(&world).unwrap(), runs, "drawn from the seed alone");
        assert!(scenario.expect.contains_key("fragcast"), "{}", path.display());
        names.insert(scenario.name);
    }
    assert_eq!(names.len(), 34, "{names:?}: each has a name of its own");
}

#[test]
fn the_defaults_of_the_reference_are_those_of_the_code() {
    let path = scenarios().join("default.toml");
    let file = Scenario::read(&path).unwrap();
    let code = Scenario {
        file: "default.toml".into(),
        expect: file.expect.clone(),
        ..Scenario::default()
    };
    assert_eq!(file, code);
    let text = fs::read_to_string(&path).unwrap();
    let named: Vec<String> = toml::from_str::<toml::Table>(&uncommented(&text))
        .unwrap()
        .iter()
        .flat_map(|(section, value)| match value {
            toml::Value::Table(keys) => keys.keys().map(|key| format!("{section}.{key}")).collect(),
            _ => vec![section.clone()],
        })
        .filter(|name| !name.starts_with("expect."))
        .collect();
    let blocks = Scenario {
        load: LoadOptions { shape: Shape::Blocks, ..LoadOptions::default() },
        ..Scenario::default()
    };
    let told: BTreeSet<String> = blocks.settings().into_iter().map(|(name, _)| name).collect();
    for name in named {
        if !["name", "description", "fault"].contains(&name.as_str()) {
            assert!(told.contains(&name), "{name} is not in the settings of reports");
        }
    }
}

/// The reference with every key set: lines that begin with `#` and no blank are keys.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key.into(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_has_examples_of_all_that_it_does_not_set() {
    let text = fs::read_to_string(scenarios().join("default.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for file in ["rtt.json", "rtt_p90.json"] {
        fs::write(dir.path().join(file), "{}").unwrap();
    }
    let all = uncommented(&text)
        .replace("\nnodes = 1000", "")
        .replace("\nshape = \"frag\"", "\nshape = \"blocks\"");
    let scenario = Scenario::parse(&all, "all.toml", dir.path()).unwrap();
    assert_eq!(scenario.faults.len(), 10);
    assert_eq!(scenario.load.block, Some(LoadOptions::default().block_time()));
    assert_eq!(scenario.network.latency, Some(dir.path().join("rtt.json")));
    let expectation = scenario.expect["fragcast"];
    assert_eq!(expectation.convicted, Some((1.0, 1.0)));
    assert_eq!(expectation.repaired, Some((0.0, 0.1)));
    let settings = scenario.settings();
    let value = |name: &str| &settings.iter().find(|(key, _)| key == name).unwrap().1;
    assert_eq!(value("network.latency"), "rtt.json", "no private path");
    assert_eq!(value("fault 3 (partition)"), "places Frankfurt, from 700 to 1900 ms");
    assert_eq!(value("fault 8 (leader dies)"), "block 3, after message 5");
}

#[test]
fn mistakes_are_told_by_line() {
    let head = with_head("");
    let cases = [
        (
            "",
            "t.toml:1: `description` is missing: what happens and how it ends, for a person, in \
             quotes\nt.toml:1: `name` is missing: a few words for tables, in quotes",
        ),
        (
            "[network]\nlosss = 0.02",
            "t.toml:4: unknown key `network.losss`, did you mean `loss`?\n    losss = 0.02",
        ),
        (
            "[netwrok]\nloss = 0.02",
            "t.toml:3: unknown table `netwrok`, did you mean `network`?\n    [netwrok]",
        ),
        (
            "[rotor]\ncolour = 1",
            "t.toml:4: unknown key `rotor.colour`; known are repair_ms\n    colour = 1",
        ),
        (
            "[network]\nloss = 0.7",
            "t.toml:4: `network.loss` must be a number from 0 to 0.5, or { mean = 0.02, burst = \
             4.0 }\n    loss = 0.7",
        ),
        (
            "[load]\nleaders = 101",
            "t.toml:4: `load.leaders` must be a whole number from 1 to 100\n    leaders = 101",
        ),
        (
            "[load]\nshape = \"frags\"",
            "t.toml:4: `load.shape` must be one of \"frag\", \"blocks\"\n    shape = \"frags\"",
        ),
        (
            "[network]\nlatency = \"rtt.json\"\nnodes = 10",
            "t.toml:4: `network.latency`: there is no such file; paths are relative to the \
             scenario's folder\n    latency = \"rtt.json\"\nt.toml:5: `network.nodes` is of the \
             default topology without `latency`; leave it out, the topology says how many there \
             are\n    nodes = 10",
        ),
        (
            "[[fault]]\nkind = \"crash\"\nshare = 0.1\nmbit = 3",
            "t.toml:6: unknown key `fault.mbit`; known are kind, share, by_weight, nodes, places, \
             from_ms, until_ms, from_block, until_block\n    mbit = 3",
        ),
        (
            "[[fault]]\nkind = \"silent\"",
            "t.toml:3: whom the fault befalls: one of `share`, `nodes` and `places`, and only \
             one\n    [[fault]]",
        ),
        (
            "[[fault]]\nkind = \"crash\"\nshare = 0.1\nfrom_ms = 9\nuntil_ms = 9",
            "t.toml:7: `fault.until_ms` must be after `from_ms`; leave it out for a fault that \
             stays\n    until_ms = 9",
        ),
        (
            "[[fault]]\nkind = \"rebuild\"\nblock = 1\nafter_message = 2",
            "t.toml:3: a fault of kind `rebuild` needs whole blocks; set `load.shape` to \
             \"blocks\"\n    [[fault]]",
        ),
        (
            "[load]\nshape = \"blocks\"\nblock_ms = 2000",
            "t.toml:5: `load.block_ms` must be such that a block has time for its Seal, 2020 ms \
             after its Env: the next Env comes after 2000 ms\n    block_ms = 2000",
        ),
        (
            "[expect.gossip]\ncomplete = [1.0, 0.9]",
            "t.toml:4: `expect.gossip.complete` must be [least, most] with least ≤ most, each a \
             number from 0 to 1\n    complete = [1.0, 0.9]",
        ),
        (
            "[network]\nloss = \"",
            "t.toml:4: not TOML: invalid basic string, expected `\"`\n    loss = \"",
        ),
    ];
    for (text, expected) in cases {
        let text = if text.is_empty() { String::new() } else { format!("{head}{text}") };
        assert_eq!(error(&text), expected, "of\n{text}");
    }
    assert_eq!(
        error("name = \"t\"\n[netwrok]"),
        "t.toml:1: `description` is missing: what happens and how it ends, for a person, in \
         quotes\nt.toml:2: unknown table `netwrok`, did you mean `network`?\n    [netwrok]",
        "the first line is not shown for what is missing"
    );
    let several = format!("{head}sed = 2\n[load]\nleaders = 0\n[gossip]\nmesh = []");
    let told = error(&several);
    assert_eq!(told.lines().filter(|line| line.starts_with("t.toml:")).count(), 3, "{told}");
}

#[test]
fn numbers_are_read_in_any_notation_and_unit() {
    let scenario = good(
        "seed = 0x10\n[network]\nuplink_mbit = 0.5\nloss = { mean = 0.02, burst = 4 }\n\
         jitter_us = 1_500\nreorder = { share = 1, delay_ms = 2.5 }\n[load]\nfrag_bytes = [200, 1_000]",
    );
    let links = scenario.network.links;
    assert_eq!((scenario.seed, links.uplink_bps, links.jitter), (16, 500_000, 1_500_000));
    assert_eq!(links.loss, crate::link::Loss::Bursty { mean: 0.02, burst: 4.0 });
    assert_eq!((links.reorder, scenario.code_loss()), ((1.0, 2_500_000), 0.02));
    assert_eq!(scenario.load.frag_bytes, [200, 1_000]);
}

#[test]
fn one_frag_per_leader_is_a_run_each_with_the_others_next() {
    let world = line(60, 6, MILLIS);
    let runs = runs("[load]\nleaders = 3\nfrag_bytes = [500, 900]", &world);
    let order: Vec<NodeId> = runs.iter().map(|run| run.load.broadcasts[0].leader).collect();
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 3, "without repetition");
    for (i, Run { load, .. }) in runs.iter().enumerate() {
        assert_eq!(load.broadcasts.len(), 1);
        assert_eq!(load.leader(1), order[i]);
        assert_eq!(load.next_leader(1), Some(order[(i + 1) % 3]));
        assert_eq!(load.broadcasts[0].bytes, [500, 900, 500][i]);
    }
}

const BLOCKS: &str = "[load]\nshape = \"blocks\"\nleaders = 2\nblocks = 3\nfrags = 2\n\
                      interval_ms = 100\nfrag_bytes = [500, 900]\n";

#[test]
fn blocks_follow_one_another_and_leaders_take_turns() {
    let world = line(30, 3, MILLIS);
    let [Run { load, .. }] = &runs(BLOCKS, &world)[..] else { panic!("one run") };
    // The order drawn is that of the runs with one frag each.
    let drawn: Vec<NodeId> = runs("[load]\nleaders = 2", &world)
        .iter()
        .map(|run| run.load.broadcasts[0].leader)
        .collect();
    let (a, b) = (drawn[0], drawn[1]);
    let block = |start: u64, leader, number| {
        [(0, 0), (100, 1), (200, 2), (220, 3)]
            .map(|(at, message)| (start + at, leader, number, 0, message, true, false))
    };
    let expected = [block(0, a, 1), block(300, b, 2), block(600, a, 3)].concat();
    assert_eq!(rows(load), expected);
    let first: Vec<(Kind, u32)> = load.broadcasts[..4].iter().map(|b| (b.kind, b.bytes)).collect();
    assert_eq!(first, [(Kind::Env, 249), (Kind::Frag, 500), (Kind::Frag, 900), (Kind::Seal, 257)]);
    let terms = runs(&format!("{BLOCKS}blocks_per_term = 2"), &world);
    let leads: Vec<(u64, NodeId)> =
        rows(&terms[0].load).iter().filter(|r| r.4 == 0).map(|r| (r.2, r.1)).collect();
    assert_eq!(leads, [(2, a), (3, a), (4, b)]);
    assert!(leads.iter().all(|(block, leader)| terms[0].load.leader(*block) == *leader));
}

#[test]
fn leaders_start_over_lie_and_die() {
    let world = line(30, 3, MILLIS);
    let rebuilt = "[[fault]]\nkind = \"rebuild\"\nblock = 2\nafter_message = 1\n[[fault]]\n\
                   kind = \"equivocate\"\nblock = 2\nmessage = 2";
    let [Run { load, faults }] = &runs(&format!("{BLOCKS}{rebuilt}"), &world)[..] else { panic!() };
    let second: Vec<_> = rows(load).into_iter().filter(|row| row.2 == 2).collect();
    let b = second[0].1;
    assert_eq!(
        second,
        [
            (300, b, 2, 0, 0, false, false),
            (400, b, 2, 0, 1, false, false),
            (500, b, 2, 1, 0, true, false),
            (600, b, 2, 1, 1, true, false),
            (700, b, 2, 1, 2, true, true),
            (720, b, 2, 1, 3, true, false),
        ]
    );
    let third = rows(load).into_iter().find(|row| row.2 == 3).unwrap();
    assert_eq!((third.0, faults.0.len()), (800, 0), "later blocks are as much later");

    let dies = "[[fault]]\nkind = \"leader_dies\"\nblock = 1\nafter_message = 1";
    let [Run { load, faults }] = &runs(&format!("{BLOCKS}{dies}"), &world)[..] else { panic!() };
    let keys: Vec<_> = rows(load).iter().map(|row| (row.2, row.4)).collect();
    // The dead leader would also lead block 3.
    assert_eq!(keys, [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)]);
    let nodes = BTreeSet::from([load.leader(1)]);
    assert_eq!(faults.0, [Fault::Crash { nodes, span: (101 * MILLIS, Nanos::MAX) }]);

    let frag = runs(&format!("[load]\nleaders = 2\n{dies}"), &world);
    for Run { load, faults } in &frag {
        let nodes = BTreeSet::from([load.broadcasts[0].leader]);
        assert_eq!(faults.0, [Fault::Crash { nodes, span: (MILLIS, Nanos::MAX) }]);
    }
}

#[test]
fn hosts_are_drawn_named_or_taken_by_place() {
    let world = line(100, 4, MILLIS);
    let faults = |text: &str| runs(&format!("[load]\nleaders = 5\n{text}"), &world);
    let drawn = faults("[[fault]]\nkind = \"silent\"\nshare = 0.1\nfrom_ms = 0.5");
    let leaders: BTreeSet<NodeId> = drawn[0].load.leaders.iter().copied().collect();
    let Fault::Silent { nodes, span } = &drawn[0].faults.0[0] else { panic!() };
    assert_eq!((nodes.len(), *span), (10, (MILLIS / 2, Nanos::MAX)));
    assert!(nodes.is_disjoint(&leaders));
    assert!(drawn.iter().all(|run| run.faults == drawn[0].faults), "the same in every run");
    let all = faults("[[fault]]\nkind = \"crash\"\nshare = 1\nby_weight = true");
    assert_eq!(all[0].faults.crashed().len(), 95, "all that never lead");
    let named = faults(
        "[[fault]]\nkind = \"slow_uplink\"\nmbit = 10\nnodes = [\"n7\", 3]\n[[fault]]\n\
         kind = \"partition\"\nplaces = [\"p1\"]\nfrom_ms = 5\nuntil_ms = 6",
    );
    let bps = 10_000_000;
    let span = crate::fault::ALWAYS;
    let there: BTreeSet<NodeId> = (0..100).filter(|node| node % 4 == 1).collect();
    let expected = [
        Fault::SlowUplink { nodes: BTreeSet::from([3, 7]), span, bps },
        Fault::Partition { nodes: there, span: (5 * MILLIS, 6 * MILLIS) },
    ];
    assert_eq!(named[0].faults.0, expected);
}

#[test]
fn what_the_world_does_not_have_is_told_by_line() {
    let world = line(20, 2, MILLIS);
    let told = |text: &str| good(text).load(&world).unwrap_err().to_string();
    assert_eq!(
        told(
            "[[fault]]\nkind = \"crash\"\nplaces = [\"p11\"]\n[[fault]]\nkind = \"crash\"\nnodes = [20]"
        ),
        "t.toml:3: there is no place `p11`, did you mean `p1`?\n    [[fault]]\nt.toml:6: there is \
         no node number 20: they are 0 to 19\n    [[fault]]"
    );
    assert_eq!(
        told("[load]\nleaders = 21"),
        "t.toml: `load.leaders` is 21, but only 20 nodes of this network can lead; set fewer, or \
         add nodes of weight"
    );
    assert!(told("[[fault]]\nkind = \"crash\"\nshare = 0.01").contains("is nobody"));
    // Nine attempts at one block are more than the wire can number.
    let again = "[[fault]]\nkind = \"rebuild\"\nblock = 1\nafter_message = 0\n".repeat(8);
    assert!(told(&format!("{BLOCKS}{again}")).contains("more than 8 attempts"));
    let huge = "[load]\nshape = \"blocks\"\nblocks = 1000\nfrags = 1000\nleaders = 1";
    let large = line(1_000, 2, MILLIS);
    assert!(good(huge).load(&large).unwrap_err().to_string().contains("at most"));
}

#[test]
fn one_more_fault_and_another_loss_move_no_draw() {
    let world = line(200, 4, MILLIS);
    let fault = "[[fault]]\nkind = \"silent\"\nshare = 0.1\n";
    let one = runs(fault, &world);
    let two = runs(&format!("[network]\nloss = 0.05\n{fault}{fault}"), &world);
    assert_eq!(one[0].faults.0[0], two[0].faults.0[0]);
    assert_ne!(two[0].faults.0[0], two[0].faults.0[1]);
    assert_eq!(one[0].load, two[0].load);
    assert_ne!(one[0].load, runs(&format!("seed = 2\n{fault}"), &world)[0].load);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text).map_err(|error| error.to_string());
    }

    /// Known words in any order, so that parsing goes beyond the first line.
    #[test]
    fn no_scenario_panics(lines in prop::collection::vec(line_of_a_file(), 0..20)) {
        let text = with_head(&lines.join("\n"));
        if let Ok(scenario) = parse(&text) {
            let _ = scenario.load(&line(12, 2, MILLIS)).map_err(|error| error.to_string());
            prop_assert!(!scenario.settings().is_empty());
        }
    }
}

fn line_of_a_file() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "seed",
        "topology",
        "nodes",
        "loss",
        "latency",
        "reorder",
        "leaders",
        "frag_bytes",
        "shape",
        "blocks",
        "frags",
        "block_ms",
        "kind",
        "share",
        "places",
        "from_ms",
        "until_ms",
        "block",
        "message",
        "after_message",
        "mesh",
        "complete",
        "mbit",
        "nosuch",
    ]);
    let value = prop::sample::select(vec![
        "0",
        "1",
        "3",
        "-1",
        "0.1",
        "nan",
        "inf",
        "1e300",
        "18446744073709551615",
        "\"\"",
        "\"blocks\"",
        "\"default\"",
        "\"a:1\"",
        "\"x.csv\"",
        "[]",
        "[1]",
        "[0.1, 1]",
        "[\"p0\"]",
        "{}",
        "{ mean = 0.1, burst = 2 }",
        "true",
        "\"silent\"",
        "\"rebuild\"",
        "\"equivocate\"",
        "\"leader_dies\"",
        "\"slow_uplink\"",
        "2020-01-01",
    ]);
    let section = prop::sample::select(vec![
        "[network]",
        "[load]",
        "[[fault]]",
        "[gossip]",
        "[expect.fragcast]",
        "[fragcast]",
        "[fault]",
    ]);
    prop_oneof![
        4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => section.prop_map(str::to_owned),
    ]
}

#[test]
fn faults_begin_and_end_with_blocks_and_befall_everybody() {
    let world = line(8, 2, MILLIS);
    let text = "[load]\nleaders = 1\nshape = \"blocks\"\nframes";
    let text = text.replace("frames", "frags = 9\n[[fault]]\nkind = \"turbine_down\"\n");
    let all = format!("{text}nodes = \"all\"\nfrom_block = 2\nuntil_block = 4");
    let span = (2_000 * MILLIS, 6_000 * MILLIS);
    let fault = Fault::TurbineDown { nodes: (0..8).collect(), span };
    assert_eq!(runs(&all, &world)[0].faults.0, [fault]);
    let wrong = |keys: &str| error(&with_head(&format!("{text}nodes = [1]\n{keys}")));
    let both = wrong("from_ms = 5\nfrom_block = 2");
    assert!(both.contains("`fault.from_block` must be alone, without the same in ms"), "{both}");
    let back = wrong("from_block = 3\nuntil_block = 3");
    assert!(back.contains("`fault.until_block` must be after"), "{back}");
    let mode = error(&with_head("[fragcast]\nmode = \"gossip\""));
    assert!(mode.contains("or `gossip` beside it"), "{mode}");
}

#[test]
fn a_registration_needs_whole_blocks_and_one_list_and_comes_once() {
    let fault = "[[fault]]\nkind = \"registration\"\nshare = 0.0\nfrom_ms = 4500\n";
    let read = |text: &str| Scenario::parse(&with_head(text), "t.toml", "".as_ref());
    let told = |text: &str| read(text).unwrap_err().to_string();
    assert!(told(fault).contains("needs whole blocks"), "{}", told(fault));
    let blocks = format!(
        "[load]\nshape = \"blocks\"\nleaders = 3\nblocks = 40\nblocks_per_term = 10\nframes\n{fault}"
    );
    let blocks = blocks.replace("frames", "frags = 3\ninterval_ms = 100");
    assert!(told(&format!("{blocks}{fault}")).contains("a second registration"));
    let gossip = format!("[fragcast]\ngossip = \"standby\"\n{blocks}");
    assert!(told(&gossip).contains("the model of gossip has one list"), "{}", told(&gossip));
    let scenario = read(&blocks).unwrap();
    let world = build(&scenario.world()).unwrap().world;
    let load = &scenario.load(&world).unwrap()[0].load;
    // Half a second later block 22 is open: the term that begins with 30 is beyond the window.
    let new = load.registration.as_ref().unwrap();
    assert_eq!((new.from_block, load.leaders.contains(&new.leader)), (30, false));
    let leaders = [29, 30, 40].map(|block| load.leader(block));
    assert_eq!(leaders, [load.leaders[2], new.leader, load.leaders[0]]);
    assert_eq!(load.next_leader(20), Some(new.leader));
}

#[test]
fn a_dead_leaders_blocks_are_its_substitutes_if_there_are_any() {
    let text = "[load]\nshape = \"blocks\"\nleaders = 3\nblocks = 5\nblocks_per_term = 1\nfrags = 9\n\
                [fragcast]\nsubstitutes = 1\n[[fault]]\nkind = \"leader_dies\"\nblock = 1\nafter_message = 10\n";
    let world = line(8, 2, MILLIS);
    let load = |text: &str| runs(text, &world).remove(0).load;
    let with = load(text);
    assert!(with.broadcasts.iter().filter(|b| b.key.block != 4).all(|b| b.key.attempt == 2));
    // The leader of block 1 of the chain would lead block 4 again.
    let of: Vec<_> = with.broadcasts.iter().filter(|b| b.key.block == 4).collect();
    let (next, _) = with.ranked(4)[1];
    assert!(of.iter().all(|b| b.leader == next && b.key.attempt == 0), "{of:?}");
    // 2 s of a block, less 1.3: three frags 200 ms apart, and the Seal.
    let kinds: Vec<_> = of.iter().map(|b| (b.key.message, b.kind, b.at / MILLIS)).collect();
    let at = 3 * 2_000 + 1_300;
    let frag = |n: u16| (n, Kind::Frag, at + 200 * u64::from(n));
    let expected = [(0, Kind::Env, at), frag(1), frag(2), frag(3), (4, Kind::Seal, at + 620)];
    assert_eq!(kinds, expected);
    let without = load(&text.replace("substitutes = 1", "substitutes = 0"));
    assert!(without.broadcasts.iter().all(|b| b.key.block != 4 && b.key.attempt == 0));
}

#[test]
fn churn_makes_tables_and_who_leaves_is_down_before() {
    let fault = "[[fault]]\nkind = \"churn\"\nshare_a_minute = 0.06\nevery_ms = 10000\n";
    let text = format!(
        "[load]\nshape = \"blocks\"\nleaders = 2\nblocks = 12\nblocks_per_term = 2\nframes\n{fault}"
    );
    let text = text.replace("frames", "frags = 9");
    let world = line(100, 4, MILLIS);
    let run = runs(&text, &world).remove(0);
    // Blocks of 2 s from block 2 on, terms of two: a table from 10 s is one from 12 s, block 8.
    let of = |t: &crate::load::Table| (t.from_block, t.known_at / SECONDS, t.absent.len());
    let tables: Vec<_> = run.load.tables.iter().map(of).collect();
    assert_eq!(tables, [(0, 0, 2), (8, 0, 2), (12, 4, 2)]);
    let crashed = run.faults.crashed();
    assert_eq!(crashed.len(), 2);
    assert!(!run.load.leaders.iter().any(|leader| crashed.contains(leader)));
    let down =
        |at: u64| crashed.iter().filter(|node| run.faults.is_down(**node, at * SECONDS)).count();
    assert_eq!([6, 8, 16].map(down), [0, 1, 2]);
    let wrong = |text: &str| Scenario::parse(&with_head(text), "t.toml", "".as_ref());
    let told = |text: &str| wrong(text).unwrap_err().to_string();
    assert!(told(fault).contains("needs whole blocks"), "{}", told(fault));
    assert!(told(&format!("{text}{fault}")).contains("a second churn"));
    let guests = told(&format!("[network]\nguests = 5\n{text}"));
    assert!(guests.contains("one membership table"), "{guests}");
    let short = text.replace("blocks = 12", "blocks = 4");
    let error = wrong(&short).unwrap().load(&world).unwrap_err().to_string();
    assert!(error.contains("before the first table"), "{error}");
}
