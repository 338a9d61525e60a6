//! An invented comparison with realistic numbers: 60 cities, 1,000 nodes, twelve leaders.

use std::collections::BTreeMap;

use crate::random::{self, Stream};
use crate::results::{Comparison, PlaceRow, Protocol, Ratio, Sweep, Table, Times};

/// Cities with degrees north and east and their number of nodes.
const CITIES: [(&str, f64, f64, usize); 60] = [
    ("Amsterdam", 52.4, 4.9, 81),
    ("Frankfurt", 50.1, 8.7, 103),
    ("London", 51.5, -0.1, 61),
    ("Paris", 48.9, 2.4, 38),
    ("Dublin", 53.3, -6.3, 17),
    ("Madrid", 40.4, -3.7, 7),
    ("Lisbon", 38.7, -9.1, 4),
    ("Milan", 45.5, 9.2, 9),
    ("Zurich", 47.4, 8.5, 12),
    ("Vienna", 48.2, 16.4, 15),
    ("Prague", 50.1, 14.4, 8),
    ("Warsaw", 52.2, 21.0, 24),
    ("Vilnius", 54.7, 25.3, 21),
    ("Riga", 56.9, 24.1, 11),
    ("Helsinki", 60.2, 24.9, 22),
    ("Stockholm", 59.3, 18.1, 14),
    ("Oslo", 59.9, 10.8, 5),
    ("Copenhagen", 55.7, 12.6, 6),
    ("Kyiv", 50.5, 30.5, 9),
    ("Bucharest", 44.4, 26.1, 8),
    ("Sofia", 42.7, 23.3, 6),
    ("Athens", 38.0, 23.7, 2),
    ("Istanbul", 41.0, 29.0, 7),
    ("Moscow", 55.8, 37.6, 13),
    ("Tel Aviv", 32.1, 34.8, 6),
    ("Dubai", 25.2, 55.3, 5),
    ("Mumbai", 19.1, 72.9, 8),
    ("Bengaluru", 13.0, 77.6, 4),
    ("Singapore", 1.4, 103.8, 43),
    ("Kuala Lumpur", 3.1, 101.7, 3),
    ("Jakarta", -6.2, 106.8, 4),
    ("Bangkok", 13.8, 100.5, 3),
    ("Ho Chi Minh City", 10.8, 106.7, 3),
    ("Hong Kong", 22.3, 114.2, 19),
    ("Taipei", 25.0, 121.6, 5),
    ("Shanghai", 31.2, 121.5, 4),
    ("Seoul", 37.6, 127.0, 15),
    ("Osaka", 34.7, 135.5, 9),
    ("Tokyo", 35.7, 139.7, 52),
    ("Sydney", -33.9, 151.2, 16),
    ("Melbourne", -37.8, 145.0, 5),
    ("Perth", -32.0, 115.9, 2),
    ("Auckland", -36.8, 174.8, 3),
    ("New York", 40.7, -74.0, 71),
    ("Ashburn", 39.0, -77.5, 49),
    ("Montreal", 45.5, -73.6, 12),
    ("Toronto", 43.7, -79.4, 10),
    ("Chicago", 41.9, -87.6, 37),
    ("Dallas", 32.8, -96.8, 23),
    ("Miami", 25.8, -80.2, 11),
    ("Denver", 39.7, -105.0, 5),
    ("Salt Lake City", 40.8, -111.9, 13),
    ("Los Angeles", 34.1, -118.2, 25),
    ("San Jose", 37.3, -121.9, 6),
    ("Seattle", 47.6, -122.3, 8),
    ("Mexico City", 19.4, -99.1, 2),
    ("Bogota", 4.7, -74.1, 1),
    ("Sao Paulo", -23.6, -46.6, 9),
    ("Santiago", -33.4, -70.7, 2),
    ("Johannesburg", -26.2, 28.0, 4),
];

/// The cities of the leaders.
const LEADERS: [usize; 12] = [0, 1, 1, 2, 11, 28, 38, 43, 44, 47, 52, 57];

/// Delays: great circles, lengthened by 35 %, at two thirds of the speed of light, plus 1 ms.
fn one_way(a: usize, b: usize) -> f64 {
    let radians = |degrees: f64| degrees.to_radians();
    let (_, lat_a, lon_a, _) = CITIES[a];
    let (_, lat_b, lon_b, _) = CITIES[b];
    let half = |from: f64, to: f64| libm::pow(libm::sin(radians(to - from) / 2.0), 2.0);
    let cosines = libm::cos(radians(lat_a)) * libm::cos(radians(lat_b));
    let h = half(lat_a, lat_b) + cosines * half(lon_a, lon_b);
    1.0 + 2.0 * 6371.0 * libm::asin(h.sqrt()) / 200.0 * 1.35
}

/// Derives a protocol's times from the limit's: the ratio of the means is `mean`, the share `fixed`
/// of the mean is the same for all nodes, and noise is added.
struct Shape {
    name: &'static str,
    mean: f64,
    fixed: f64,
    noise: f64,
    missed: usize,
    bytes: f64,
    busiest: f64,
    level: f64,
}

const fn shape(
    (name, mean, fixed, noise): (&'static str, f64, f64, f64),
    (missed, bytes, busiest, level): (usize, f64, f64, f64),
) -> Shape {
    Shape { name, mean, fixed, noise, missed, bytes, busiest, level }
}

const SHAPES: [Shape; 7] = [
    shape(("limit", 60.0, 0.0, 0.0), (0, 1.14, 0.0, 0.0)),
    shape(("relayed_limit", 57.0, 0.0, 0.0), (0, 1.14, 0.0, 0.0)),
    shape(("fragcast", 130.0, 0.3, 0.12), (0, 2.24, 0.71, 0.08)),
    shape(("turbine", 140.0, 0.35, 0.3), (3, 4.41, 5.2, 0.006)),
    shape(("rotor", 105.0, 0.3, 0.2), (0, 4.83, 2.9, 0.1)),
    shape(("gossip", 90.0, 0.15, 0.25), (0, 7.31, 1.35, 0.2)),
    shape(("direct", 300.0, 0.6, 0.4), (260, 1.38, 49.6, 0.0)),
];

/// The comparison.
pub(super) fn comparison() -> Comparison {
    Comparison {
        digest: blake3::hash(b"a comparison that never happened").to_string(),
        settings: [
            (
                "command",
                "netsim compare --nodes 1000 --leaders 12 --kb 36 --seed 7 --html out.html",
            ),
            ("nodes", "1,000 in 60 places"),
            ("delays", "great circles × 1.35 at 200 km/ms, 12 % factor per pair of places"),
            ("uplink", "1 Gbit/s, downlink 1 Gbit/s, queues of 250 ms"),
            ("loss", "1 % a hop, independent"),
            ("hop", "0.1 ms"),
            ("message", "36 kB, 12 leaders by weight, 5 messages each"),
            ("seed", "7"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        places: CITIES
            .map(|(name, lat, lon, nodes)| PlaceRow {
                name: name.into(),
                position: Some((lat, lon)),
                nodes,
            })
            .into(),
        tables: vec![
            table("36 kB to 1,000 nodes in 60 places, delays from great circles", 1.0),
            table("The same with a 12 % factor per pair of places", 1.06),
        ],
        notes: vec![
            "These numbers are made up: they show what a report looks like, and nothing about any \
             protocol."
                .into(),
            "A node that never completes counts in the mean at the end of the run; percentiles \
             beyond the missed are left out."
                .into(),
        ],
    }
}

/// A table with times multiplied by `stretch`.
pub(super) fn table(title: &str, stretch: f64) -> Table {
    let limit = samples(&SHAPES[0], stretch);
    let limit_times = times(&limit);
    let protocols: BTreeMap<String, Protocol> = SHAPES
        .iter()
        .map(|shape| (shape.name.to_owned(), protocol(shape, stretch, &limit_times)))
        .collect();
    Table { title: title.into(), protocols }
}

/// Times by leader and city, one for each node of the city; `None` for a missed message.
fn samples(shape: &Shape, stretch: f64) -> Vec<(usize, Option<f64>)> {
    let mut rng: Stream = random::stream(1, shape.name, 0);
    let raw: Vec<(usize, f64)> = LEADERS
        .iter()
        .flat_map(|leader| (0..CITIES.len()).map(move |city| (*leader, city)))
        .flat_map(|(leader, city)| (0..CITIES[city].3).map(move |_| (city, one_way(leader, city))))
        .collect();
    let mean = raw.iter().map(|(_, ms)| ms).sum::<f64>() / raw.len() as f64;
    let scaled = raw.iter().map(|(city, ms)| {
        let factor = libm::exp(shape.noise * random::normal(&mut rng));
        let own = ms / mean * (1.0 - shape.fixed) * factor;
        (*city, (own + shape.fixed) * shape.mean * stretch)
    });
    let mut all: Vec<(usize, f64)> = scaled.collect();
    let mean = all.iter().map(|(_, ms)| ms).sum::<f64>() / all.len() as f64;
    all.iter_mut().for_each(|(_, ms)| *ms *= shape.mean * stretch / mean);
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    let reached = all.len() - shape.missed;
    all.iter().enumerate().map(|(i, (city, ms))| (*city, (i < reached).then_some(*ms))).collect()
}

fn times(sorted: &[(usize, Option<f64>)]) -> Times {
    let reached: Vec<f64> = sorted.iter().filter_map(|(_, ms)| *ms).collect();
    let at = |share: f64| sorted.get((share * sorted.len() as f64) as usize).and_then(|s| s.1);
    Times {
        mean: Some(reached.iter().sum::<f64>() / reached.len() as f64),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    }
}

fn protocol(shape: &Shape, stretch: f64, limit: &Times) -> Protocol {
    let sorted = samples(shape, stretch);
    let times = times(&sorted);
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let ratio = Ratio {
        mean: over(times.mean, limit.mean),
        p50: over(times.p50, limit.p50),
        p90: over(times.p90, limit.p90),
        p99: over(times.p99, limit.p99),
        worst_leader: over(times.mean, limit.mean).map(|ratio| match shape.name {
            "relayed_limit" => ratio,
            _ => ratio * 1.17,
        }),
    };
    let step = sorted.len() / 200;
    let cdf = (0..200).filter_map(|i| {
        let n = (i + 1) * step;
        Some((sorted[n - 1].1?, n as f64 / sorted.len() as f64))
    });
    let by_place = (0..CITIES.len()).map(|city| {
        let here = sorted.iter().filter(|(at, _)| *at == city).filter_map(|(_, ms)| *ms);
        let (sum, n) = here.fold((0.0, 0.0), |(sum, n), ms| (sum + ms, n + 1.0));
        (n > 0.0).then(|| sum / n)
    });
    let sent = (0..200).map(|i| match shape.level {
        level if level > 0.0 => level + (shape.busiest - level) * libm::exp(-f64::from(i) / 9.0),
        // Only leaders send.
        _ if i < 2 => shape.busiest,
        _ => 0.0,
    });
    let (detail, tried) = of_setting(shape.name);
    Protocol {
        missed: shape.missed as u64,
        repaired: (shape.mean * stretch) as u64 * u64::from(shape.name != "limit"),
        pairs: sorted.len() as u64,
        bytes_per_payload_byte: shape.bytes,
        next_leader_p99: times.p50.map(|ms| ms * 0.8),
        ratio,
        detail: detail.into(),
        tried: tried.iter().map(|(name, ms)| ((*name).to_owned(), Some(ms * stretch))).collect(),
        busiest: (shape.busiest, node_of(shape.name).into()),
        degree: degree_of(shape.name),
        dropped: if shape.name == "direct" { 18_311 } else { 0 },
        node_shreds: 1_200_000,
        cdf: cdf.collect(),
        sent_mb: sent.collect(),
        by_place: by_place.collect(),
        fallback: None,
        times,
    }
}

fn of_setting(name: &str) -> (&'static str, &'static [(&'static str, f64)]) {
    match name {
        "fragcast" => ("regional tree, 5 territories, 32 + 21 shreds", &[]),
        "turbine" => ("fanout 200, 32 + 32 shreds", &[]),
        "rotor" => ("32 + 32 shreds, relays by weight", &[]),
        "gossip" => {
            let tried =
                &[("D = 6", 104.2), ("D = 8", 96.8), ("D = 12", 90.0), ("based-op's 8", 98.1)];
            ("gossipsub, D = 12 (best of 4)", tried)
        }
        "direct" => ("a stream to everybody", &[]),
        _ => ("", &[]),
    }
}

fn node_of(name: &str) -> &'static str {
    match name {
        "fragcast" => "n0412",
        "turbine" => "n0007",
        "rotor" => "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2",
        "gossip" => "n0931",
        "direct" => "n0007",
        _ => "",
    }
}

fn degree_of(name: &str) -> (u32, Option<u32>) {
    match name {
        "fragcast" => (118, Some(128)),
        "gossip" => (24, Some(24)),
        "limit" => (0, None),
        _ => (999, None),
    }
}

/// A sweep over loss: all protocols except one get slower, and one has no numbers in the middle.
pub(super) fn sweep() -> Sweep {
    let points = [0.0, 0.5, 1.0, 2.0, 5.0, 10.0].map(|loss: f64| {
        let mut comparison = comparison();
        comparison.digest = blake3::hash(&loss.to_le_bytes()).to_string();
        comparison.settings.push(("loss here".into(), format!("{loss} %")));
        for (name, p) in &mut comparison.tables[0].protocols {
            let by = match name.as_str() {
                "limit" | "relayed_limit" => 0.0,
                "fragcast" => 0.01,
                "gossip" => 0.08,
                "direct" => 0.3,
                _ => 0.05,
            };
            let worse = |ratio: &mut Option<f64>| *ratio = ratio.map(|r| r * (1.0 + by * loss));
            worse(&mut p.ratio.mean);
            worse(&mut p.ratio.p99);
            p.bytes_per_payload_byte *= 1.0 + by * loss / 4.0;
            if name == "turbine" && loss > 1.0 {
                p.ratio.p99 = None;
            }
        }
        (loss, comparison)
    });
    Sweep { parameter: "loss, %".into(), points: points.into() }
}

/// A protocol with every optional value missing and every number not finite.
pub(super) fn nothing() -> Protocol {
    Protocol {
        times: Times { mean: None, p50: Some(f64::NAN), p90: Some(f64::INFINITY), p99: None },
        missed: 0,
        repaired: 0,
        pairs: 0,
        bytes_per_payload_byte: f64::NAN,
        next_leader_p99: None,
        ratio: Ratio {
            mean: Some(f64::NAN),
            p50: None,
            p90: Some(f64::NEG_INFINITY),
            p99: None,
            worst_leader: Some(f64::INFINITY),
        },
        detail: String::new(),
        tried: vec![("D=6".into(), None), ("D=8".into(), Some(f64::NAN))],
        busiest: (f64::INFINITY, String::new()),
        degree: (0, None),
        dropped: 0,
        node_shreds: 0,
        cdf: vec![(f64::NAN, 0.5), (f64::INFINITY, 1.0)],
        sent_mb: vec![f64::NAN, 0.0],
        by_place: vec![None, Some(f64::NAN)],
        fallback: None,
    }
}

/// Writes what a test made into the directory that `NETSIM_PAGES` names, if any.
pub(super) fn keep(name: &str, text: &str) {
    if let Some(directory) = std::env::var_os("NETSIM_PAGES") {
        std::fs::write(std::path::Path::new(&directory).join(name), text).unwrap();
    }
}
