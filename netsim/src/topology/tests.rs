use std::path::Path;

use fragcast_shredder::testing::data;

use super::*;
use crate::geo::{distance_km, region};

fn default(nodes: u32, seed: u64) -> WorldConfig {
    WorldConfig { source: Source::Default { nodes }, seed, ..WorldConfig::default() }
}

fn regions(spec: &str) -> WorldConfig {
    let source = Source::Regions(parse_regions(spec).unwrap());
    WorldConfig { source, ..WorldConfig::default() }
}

fn refusal(config: &WorldConfig) -> String {
    build(config).unwrap_err().to_string()
}

/// A hash of all that a run can depend on.
fn hash(world: &World) -> String {
    let mut hasher = blake3::Hasher::new();
    for node in &world.nodes {
        hasher.update(node.id.as_bytes());
        hasher.update(&node.weight.to_le_bytes()).update(&node.place.to_le_bytes());
    }
    for delay in &world.delays {
        hasher.update(&delay.to_le_bytes());
    }
    hasher.finalize().to_hex()[..16].into()
}

#[test]
fn the_default_world_is_the_same_everywhere() {
    let built = build(&default(1_000, 7)).unwrap();
    assert_eq!(build(&default(1_000, 7)).unwrap(), built);
    // If this hash changes, every digest over the default world changes.
    assert_eq!(hash(&built.world), "fd2dcd8bdc8adc86");
    assert_eq!(hash(built.plain.as_ref().unwrap()), "391028faf1b999b1");
    assert_ne!(build(&default(1_000, 8)).unwrap().world.delays, built.world.delays);
}

#[test]
fn nodes_are_dealt_to_cities_by_their_shares() {
    let shares: u64 = cities::CITIES.iter().map(|city| city.share).sum();
    assert_eq!(shares, 1_000, "shares are per thousand");
    let world = build(&default(10_000, 3)).unwrap().world;
    assert_eq!(world.len(), 10_000);
    let mut counts = vec![0u64; world.places.len()];
    for node in &world.nodes {
        counts[usize::from(node.place)] += 1;
    }
    for city in &cities::CITIES {
        let place = world.places.iter().position(|place| place.name == city.name);
        let got = place.map_or(0, |place| counts[place]) as f64;
        let want = 10.0 * city.share as f64;
        // Five standard deviations of this many draws.
        assert!((got - want).abs() < 5.0 * libm::sqrt(want), "{}: {got}", city.name);
    }
    let third = weights::share_of_largest(&world.weights(), 3_333);
    assert!((0.85..0.9).contains(&third), "{third}");
}

#[test]
fn small_worlds_have_only_the_places_they_use() {
    for n in [2, 10, 11] {
        let Built { world, plain, notes } = build(&default(n, 5)).unwrap();
        let plain = plain.unwrap();
        assert_eq!((world.len(), world.delays.len()), (n as usize, world.places.len().pow(2)));
        assert!(world.places.len() <= n as usize);
        let used = |place: usize| world.nodes.iter().any(|node| usize::from(node.place) == place);
        assert!((0..world.places.len()).all(used));
        assert_eq!((&world.nodes, &world.places), (&plain.nodes, &plain.places));
        assert!(notes.iter().all(|note| note.ends_with('.')), "{notes:?}");
        assert_eq!(notes.len(), 3);
    }
    for n in [0, 1, 10_001, u32::MAX] {
        let error = refusal(&default(n, 5));
        assert!(
            error.starts_with(&format!("{n} nodes")) && error.contains("2 to 10000"),
            "{error}"
        );
    }
}

#[test]
fn factors_are_of_pairs_and_have_their_deviation() {
    let Built { world, plain, .. } = build(&default(10_000, 1)).unwrap();
    let (n, plain) = (world.places.len(), plain.unwrap());
    let mut factors = Vec::new();
    for a in 0..n {
        assert_eq!(world.delays[a * n + a], 125_000, "a quarter of a millisecond in a city");
        for b in 0..a {
            assert_eq!(world.delays[a * n + b], world.delays[b * n + a]);
            factors.push(world.delays[a * n + b] as f64 / plain.delays[a * n + b] as f64);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let squares: Vec<f64> = factors.iter().map(|factor| (factor - 1.0).powi(2)).collect();
    assert!((mean(&factors) - 1.0).abs() < 0.01, "{}", mean(&factors));
    assert!((libm::sqrt(mean(&squares)) - 0.12).abs() < 0.005, "{}", mean(&squares));

    let wild = build(&WorldConfig { pair_factor: 1.0, ..default(10_000, 1) }).unwrap();
    let ratio = |(a, b): (&Nanos, &Nanos)| *a as f64 / *b as f64;
    let least = wild.world.delays.iter().zip(&plain.delays).map(ratio).fold(9.0, f64::min);
    assert!((least - 0.5).abs() < 1e-6, "{least}");

    let none = build(&WorldConfig { pair_factor: 0.0, ..default(10_000, 1) }).unwrap();
    assert_eq!((&none.world, none.plain), (&plain, None));
    for sigma in [-0.1, 1.5, f64::NAN] {
        assert!(refusal(&WorldConfig { pair_factor: sigma, ..default(10, 1) }).contains("factor"));
    }
}

#[test]
fn regions_without_a_matrix_are_modelled() {
    let Built { world, plain, .. } = build(&regions("us-east-1:3,eu-central-1:2")).unwrap();
    let ids: Vec<_> = world.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(
        ids,
        ["us-east-1/0", "us-east-1/1", "us-east-1/2", "eu-central-1/0", "eu-central-1/1"]
    );
    assert_eq!(world.weights(), [1; 5]);
    let (east, central) = (region("us-east-1").unwrap(), region("eu-central-1").unwrap());
    assert_eq!(world.places[1].position, Some(central.position));
    let want = Fit::AWS.one_way_ms(distance_km(east.position, central.position));
    assert_eq!(plain.unwrap().delay(0, 4), nanos(want));
    let error = refusal(&regions("us-east-1:3,eu-centrl-1:2"));
    assert!(error.contains("did you mean eu-central-1?") && error.contains("built-in"), "{error}");
    assert!(refusal(&regions("us-east-1:1")).starts_with("1 nodes"));
    assert!(refusal(&regions("us-east-1:9999,us-east-2:2")).starts_with("10001 nodes"));
    let source = Source::Regions(vec![("us-east-1".into(), 0)]);
    assert!(refusal(&WorldConfig { source, ..regions("a:1") }).contains("us-east-1:0"));
    let everywhere = WorldConfig { source: Source::Regions(Vec::new()), ..WorldConfig::default() };
    assert_eq!(build(&everywhere).unwrap().world.len(), 33 * 30);
}

/// A matrix of three regions of AWS and one of another cloud, at `factor` times 10 ms.
fn matrix(path: &Path, factor: f64) -> PathBuf {
    let names = ["eu-west-1", "moon-1", "sa-east-1", "us-east-1"];
    let row = |from: usize| -> serde_json::Map<String, serde_json::Value> {
        let rtt = |to: usize| factor * (1.0 + 10.0 * from.abs_diff(to) as f64 + from as f64);
        (0..4).map(|to| (names[to].to_owned(), rtt(to).into())).collect()
    };
    let data: serde_json::Map<String, serde_json::Value> =
        (0..4).map(|from| (names[from].to_owned(), row(from).into())).collect();
    std::fs::write(path, serde_json::json!({ "data": data }).to_string()).unwrap();
    path.into()
}

#[test]
fn a_matrix_alone_fills_its_regions_and_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let p50 = matrix(&dir.path().join("p50.json"), 1.0);
    let p90 = matrix(&dir.path().join("p90.json"), 1.5);
    let alone = WorldConfig { latency: Some(p50.clone()), ..WorldConfig::default() };
    let Built { world, plain, notes } = build(&alone).unwrap();
    assert_eq!((world.len(), world.places.len(), plain), (120, 4, None));
    assert_eq!((world.delay(0, 1), world.delay(0, 30), world.delay(30, 0)), {
        (500_000, 5_500_000, 6_000_000)
    });
    assert_eq!(world.places[1].position, None, "nobody knows where moon-1 is");
    assert!(world.spreads.is_empty());
    assert_eq!(world.source, "4 AWS regions, delays of p50.json");
    assert!(notes[1].contains("p50.json"), "{notes:?}");

    let some = Source::Regions(parse_regions("us-east-1:2,moon-1:1").unwrap());
    let both = WorldConfig { source: some, latency_p90: Some(p90.clone()), ..alone.clone() };
    let world = build(&both).unwrap().world;
    assert_eq!((world.len(), world.delay(0, 2), world.delay(2, 0)), (3, 12_000_000, 11_000_000));
    let high = world.spreads[1] as f64 * (std::f64::consts::LN_10 - std::f64::consts::LN_2);
    assert!((high - 6_000_000.0).abs() < 2.0, "{high}");

    let one_way = |pair| WorldConfig { source: Source::Regions(pair), ..alone.clone() };
    let error = refusal(&one_way(vec![("eu-west-2".into(), 5)]));
    assert!(error.contains("not in p50.json; did you mean eu-west-1?"), "{error}");
    let alone_p90 = WorldConfig { latency: None, ..both };
    assert!(refusal(&alone_p90).contains("give both files"));
    let swapped = WorldConfig { latency: Some(p90), latency_p90: Some(p50), ..alone };
    assert!(refusal(&swapped).contains("interchanged"));
}

#[test]
fn a_matrix_fits_the_model_of_a_file_of_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("nodes.csv");
    std::fs::write(&csv, format!("{HEADER}\na,4,50.1,8.7\nb,0,40.7,-74\nc,1,50.1,8.7\n")).unwrap();
    let plain = WorldConfig { source: Source::Csv(csv), ..WorldConfig::default() };
    let built = build(&plain).unwrap();
    assert_eq!(built.world.source, "nodes.csv, delays from coordinates × (1 ± 0.12)");
    assert_eq!((built.world.weights(), built.world.delay(0, 2)), (vec![4, 0, 1], 125_000));
    assert!(built.notes[1].contains("AWS's medians"), "{:?}", built.notes);

    let p50 = matrix(&dir.path().join("p50.json"), 1.0);
    let fitted = WorldConfig { latency: Some(p50.clone()), ..plain };
    let other = build(&fitted).unwrap();
    assert_ne!(other.world.delay(0, 1), built.world.delay(0, 1));
    assert!(other.notes[1].contains("of 6 measured pairs (p50.json)"), "{:?}", other.notes);
    let error = refusal(&WorldConfig { latency_p90: Some(p50), ..fitted });
    assert!(error.contains("leave it out"), "{error}");
}

#[test]
fn the_validators_of_solana_are_read_whole() {
    let Some(path) = data("topology/solana-epoch860.csv") else { return };
    let config = WorldConfig { source: Source::Csv(path), ..WorldConfig::default() };
    let Built { world, notes, .. } = build(&config).unwrap();
    assert_eq!((world.len(), world.places.len()), (959, 142));
    assert_eq!(world.nodes[0].weight, 13_827_530);
    assert!(notes[0].contains("959 nodes at 142 coordinates"), "{notes:?}");
    assert_eq!(hash(&world), "70db422cadf13476");
}

#[test]
fn all_of_aws_by_its_matrix() {
    let Some(path) = data("latency/aws-rtt-p50.json") else { return };
    let p90 = path.with_file_name("aws-rtt-p90.json");
    let config =
        WorldConfig { latency: Some(path), latency_p90: Some(p90), ..WorldConfig::default() };
    let world = build(&config).unwrap().world;
    assert_eq!((world.len(), world.spreads.len()), (990, 33 * 33));
    assert!(world.places.iter().all(|place| place.position.is_some()));
}
