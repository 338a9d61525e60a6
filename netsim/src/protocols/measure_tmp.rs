use crate::engine::{Setup, run};
use crate::fault::*;
use crate::link::*;
use crate::load::Load;
use crate::protocols::fragcast::*;
use crate::protocols::limit;
use crate::protocols::shreds::*;
use crate::topology::*;
use crate::{MILLIS, SECONDS};
use fragcast_turbine::RoutePolicy;

#[test]
#[ignore]
fn measure() {
    let csv = || Source::Csv("/work/shared/data/topology/solana-epoch860.csv".into());
    let lat = || Some("/work/shared/data/latency/aws-rtt-p50.json".into());
    for (name, source, latency) in [("csv", csv(), None), ("aws", Source::Regions(vec![]), lat())] {
        let built = build(&WorldConfig { source, latency, ..WorldConfig::default() }).unwrap();
        println!("{} {:?}", built.world.source, built.notes);
        let world = built.world;
        let mut rng = crate::random::stream(1, "leaders", 0);
        let leaders: Vec<u32> = crate::random::weighted_sample(&mut rng, &world.weights(), 12)
            .into_iter()
            .map(|i| i as u32)
            .collect();
        let t = std::time::Instant::now();
        let network = Network::new(&world);
        println!("network {:?}", t.elapsed());
        let n = world.len();
        for silent in [0.0, 0.1] {
            for kb in [36_000u32, 144_000] {
                let cfgs: Vec<(&str, Option<ShredsConfig>)> = vec![
                    (
                        "turbine",
                        Some(ShredsConfig {
                            spread: Spread::Turbine { fanout: 200 },
                            cut: CutRule::Agave(32),
                            repair_after: 250 * MILLIS,
                        }),
                    ),
                    (
                        "rotor",
                        Some(ShredsConfig {
                            spread: Spread::Rotor,
                            cut: CutRule::Alpenglow(32),
                            repair_after: 250 * MILLIS,
                        }),
                    ),
                    (
                        "direct",
                        Some(ShredsConfig {
                            spread: Spread::Direct,
                            cut: CutRule::Fragcast(0.01),
                            repair_after: 250 * MILLIS,
                        }),
                    ),
                    ("fragcast", None),
                ];
                for (p, c) in cfgs {
                    let t = std::time::Instant::now();
                    let (mut sum, mut lim, mut bytes, mut events, mut missed, mut rep, mut handled) =
                        (0.0, 0.0, 0u64, 0, 0, 0, 0);
                    for i in 0..12 {
                        let mut l = leaders.clone();
                        l.rotate_left(i);
                        let load = Load::single(l, kb);
                        let mut f = Faults::default();
                        if silent > 0.0 {
                            let mut r = crate::random::stream(1, "silent", 0);
                            let mut nodes: Vec<u32> =
                                (0..n as u32).filter(|x| !leaders.contains(x)).collect();
                            crate::random::shuffle(&mut r, &mut nodes);
                            f.0.push(Fault::Silent {
                                nodes: nodes
                                    .into_iter()
                                    .take((n as f64 * silent) as usize)
                                    .collect(),
                                span: ALWAYS,
                            });
                        }
                        let links = LinkConfig { packet_cpu: 0, ..LinkConfig::default() };
                        let s = Setup {
                            world: &world,
                            links,
                            faults: &f,
                            load: &load,
                            seed: i as u64,
                            patience: 3 * SECONDS,
                        };
                        let o = match c {
                            Some(c) => run(s, &mut Shreds::new(c, &world, i as u64)),
                            None => {
                                let cfg = FragcastConfig {
                                    route: RoutePolicy::Auto,
                                    loss: 0.01,
                                    connections: 1024,
                                    repair: true,
                                    uplink_bps: 1_000_000_000,
                                };
                                run(s, &mut Fragcast::new(&cfg, &network, &load, &f, i as u64))
                            }
                        };
                        let lt = limit::times(&world, &links, &load.broadcasts[0]);
                        for x in 0..n {
                            if x as u32 != load.leaders[0] {
                                let a = o.completions[0].after[x];
                                if a == u64::MAX {
                                    missed += 1;
                                    sum += o.end as f64;
                                } else {
                                    sum += a as f64;
                                }
                                rep += usize::from(o.completions[0].repaired[x]);
                                lim += lt[x] as f64;
                            }
                        }
                        bytes += o.sent.iter().sum::<u64>();
                        events += o.events;
                        handled += o.handled;
                    }
                    println!(
                        "{name} silent {silent} {kb} {p}: ratio {:.3} limit {:.1} ms bytes {:.2} missed {missed} repaired {rep} events {events} {:.1?} {:.0} node-shreds/s",
                        sum / lim,
                        lim / 12.0 / (n - 1) as f64 / 1e6,
                        bytes as f64 / 12.0 / n as f64 / kb as f64,
                        t.elapsed(),
                        handled as f64 / t.elapsed().as_secs_f64()
                    );
                }
            }
        }
    }
}
