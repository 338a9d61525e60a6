use fragcast_shredder::testing::data;

use super::*;

fn at(name: &str) -> (f64, f64) {
    region(name).unwrap().position
}

#[test]
fn distances_are_those_of_the_globe() {
    let quarter = EARTH_RADIUS_KM * std::f64::consts::FRAC_PI_2;
    for (a, b, km) in [
        // From the pole to the equator, and around the equator to the other side.
        ((90.0, 0.0), (0.0, 77.0), quarter),
        ((0.0, -90.0), (0.0, 90.0), 2.0 * quarter),
        ((10.0, 20.0), (-10.0, -160.0), 2.0 * quarter),
        // Across the date line: two degrees, not 358.
        ((0.0, 179.0), (0.0, -179.0), quarter / 45.0),
        // London and New York, by the calculators of airlines 5,570 km.
        ((51.5074, -0.1278), (40.7128, -74.0060), 5_570.2),
        // Paris to Sydney, 16,960 km.
        ((48.8566, 2.3522), (-33.8688, 151.2093), 16_960.5),
    ] {
        let got = distance_km(a, b);
        assert!((got - km).abs() < km * 2e-4, "{a:?} {b:?}: {got} for {km}");
        assert_eq!(got, distance_km(b, a));
    }
    assert_eq!(distance_km((52.0, 5.0), (52.0, 5.0)), 0.0);
    // A distance of one metre is still exact.
    let metre = distance_km((52.0, 5.0), (52.0 + 1.0 / 111_195.08, 5.0));
    assert!((metre - 0.001).abs() < 1e-6, "{metre}");
}

#[test]
fn the_delay_rises_evenly_from_a_city_to_the_line() {
    let model = Fit::AWS;
    assert_eq!(model.one_way_ms(0.0), LOCAL_MS);
    let steps: Vec<f64> = (0..=400).map(|km| model.one_way_ms(f64::from(km))).collect();
    assert!(steps.windows(2).all(|w| w[1] > w[0] && w[1] - w[0] < 0.02), "no step");
    assert!((model.one_way_ms(FIBRE_KM_PER_MS) - 1.347_3 - 1.623_5).abs() < 1e-9);
    // Frankfurt to Zurich, where AWS measures 2.9 ms without its own round trips.
    let there = model.one_way_ms(distance_km(at("eu-central-2"), at("eu-central-1")));
    assert!((2.9..4.0).contains(&there), "{there}");
}

/// A matrix that follows the model exactly, apart from the time of measuring and `detours`.
fn synthetic(model: Fit, detours: &[(&str, &str)]) -> RttMatrix {
    let own = |i: usize| 1.0 + (i % 5) as f64;
    let rtt = |i: usize, j: usize| {
        if i == j {
            return own(i);
        }
        let (a, b) = (REGIONS[i], REGIONS[j]);
        let line = 2.0 * model.one_way_ms(distance_km(a.position, b.position));
        let factor = if detours.contains(&(a.name, b.name)) { 4.0 } else { 1.0 };
        line * factor - 2.0 * LOCAL_MS + f64::midpoint(own(i), own(j))
    };
    let row = |i: usize| -> serde_json::Map<String, serde_json::Value> {
        (0..REGIONS.len()).map(|j| (REGIONS[j].name.to_owned(), rtt(i, j).into())).collect()
    };
    let data: serde_json::Map<String, serde_json::Value> =
        (0..REGIONS.len()).map(|i| (REGIONS[i].name.to_owned(), row(i).into())).collect();
    RttMatrix::parse(&serde_json::json!({ "data": data }).to_string(), "synthetic").unwrap()
}

#[test]
fn the_fit_finds_what_made_a_matrix_and_detours_do_not_bend_it() {
    let made = Fit { inflation: 2.1, access_ms: 0.7, ..Fit::AWS };
    let detours = [
        ("me-central-1", "il-central-1"),
        ("il-central-1", "me-central-1"),
        ("sa-east-1", "af-south-1"),
        ("af-south-1", "sa-east-1"),
    ];
    for detours in [&detours[..0], &detours] {
        let found = fit(&synthetic(made, detours)).unwrap();
        assert!((found.inflation - 2.1).abs() < 1e-6, "{found:?}");
        assert!((found.access_ms - 0.7).abs() < 1e-5, "{found:?}");
        assert!(found.median_error < 1e-6 && found.p90_error < 1e-6, "{found:?}");
        assert_eq!(found.rms_ms < 1e-5, detours.is_empty(), "{found:?}");
        assert_eq!(found.pairs, 33 * 32);
    }
}

#[test]
fn unknown_regions_are_left_out_and_two_are_too_few() {
    let rows = |names: [&str; 3]| {
        let row = names.map(|to| format!(r#""{to}":9"#)).join(",");
        let rows = names.map(|from| format!(r#""{from}":{{{row}}}"#)).join(",");
        fit(&RttMatrix::parse(&format!(r#"{{"data":{{{rows}}}}}"#), "rows").unwrap())
    };
    assert_eq!(rows(["moon-1", "eu-west-1", "eu-west-2"]), None);
    // With equal round trips everywhere, the fit has no access and the shortest path.
    let flat = rows(["eu-west-3", "eu-west-1", "eu-west-2"]).unwrap();
    assert_eq!(flat.pairs, 6);
    assert!(flat.inflation >= 1.0 && flat.access_ms >= 0.0, "{flat:?}");
}

#[test]
fn the_constants_are_the_fit_to_the_measured_matrix() {
    let Some(path) = data("latency/aws-rtt-p50.json") else { return };
    let found = fit(&RttMatrix::load(&path).unwrap()).unwrap();
    let near = |got: f64, constant: f64, tolerance: f64| {
        assert!((got / constant - 1.0).abs() < tolerance, "{got} for {constant}: {found:?}");
    };
    near(found.inflation, Fit::AWS.inflation, 5e-4);
    near(found.access_ms, Fit::AWS.access_ms, 5e-4);
    near(found.median_error, Fit::AWS.median_error, 5e-3);
    near(found.p90_error, Fit::AWS.p90_error, 5e-3);
    near(found.rms_ms, Fit::AWS.rms_ms, 5e-3);
    assert_eq!(found.pairs, Fit::AWS.pairs);
    assert_eq!(found.to_string(), Fit::AWS.to_string());
}
