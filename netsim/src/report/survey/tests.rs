//! Reports of an invented survey.

use std::collections::BTreeMap;

use super::super::sample::{keep, nothing, table as sample_table};
use super::super::tests::check_page;
use super::*;

/// Four rows: fragcast is the fastest in one, and has no number in the last.
fn survey() -> Survey {
    let row = |network: &str, nodes: usize, bytes: u32, loss: f64, stretch: f64| {
        let mut protocols = sample_table("", 1.0).protocols;
        let ours = protocols.get_mut("fragcast").unwrap();
        ours.times.mean = ours.times.mean.map(|ms| ms * stretch);
        ours.ratio.mean = ours.ratio.mean.map(|ratio| ratio * stretch);
        SurveyRow {
            network: network.into(),
            nodes,
            bytes,
            uplink_bps: 1_000_000_000,
            loss,
            digest: blake3::hash(network.as_bytes()).to_string(),
            protocols,
            settings: vec![
                ("seed".into(), "1".into()),
                ("network.nodes".into(), nodes.to_string()),
            ],
            notes: vec!["These numbers are made up.".into(), format!("{nodes} nodes are drawn.")],
        }
    };
    let mut rows = vec![
        row("cities", 200, 3_600, 0.01, 1.0),
        row("cities", 1_000, 36_000, 0.01, 0.5),
        row("aws-rtt-p50", 990, 1_000_000, 0.0, 0.7),
        row("a-network-with-a-long-name", 5_000, 144_000, 0.005, 1.0),
    ];
    rows[3].protocols.insert("fragcast".into(), nothing());
    Survey::of(rows, vec![("command".into(), "netsim table --kb 3.6,36".into())])
}

fn text(survey: &Survey, bold: bool) -> String {
    let mut out = Vec::new();
    table(&mut out, survey, bold).unwrap();
    String::from_utf8(out).unwrap()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_table_of_combinations_is_what_it_was() {
    let text = text(&survey(), false);
    keep("survey.txt", &text);
    assert_eq!(text, include_str!("survey.txt"), "see NETSIM_PAGES in sample.rs");
    assert!(text.lines().all(|line| line.chars().count() < 120));
}

#[test]
fn it_says_where_fragcast_is_not_the_fastest() {
    let survey = survey();
    let (table, page) = (text(&survey, false), page(&survey));
    for text in [words(&table), words(&page)] {
        assert!(
            text.contains("fragcast is the fastest in 1 of 4 rows; it is behind in:"),
            "{text}"
        );
        assert!(
            text.contains(
                "cities, 200 nodes, 3.6 kB, 1,000 Mbit/s, 1 % loss: fragcast 2.167, gossip 1.500 × \
                 limit (44.4 % more)"
            ),
            "{text}"
        );
        assert!(text.contains("0.5 % loss: fragcast –, gossip 1.500 × limit"), "{text}");
    }
    check_page(&page);
    assert!(page.contains("<h1>fragcast is the fastest in 1 of 4 rows</h1>"));
    keep("survey.html", &page);
    let value = json(&survey);
    let standing = &value["standing"]["fragcast"];
    assert_eq!((&standing["rows"], &standing["fastest"]), (&json!(4), &json!(1)));
    assert_eq!(standing["behind"][1], json!({"row": 2, "by": "gossip"}));
    assert_eq!(value["rows"][1]["fastest"], "fragcast");
    assert_eq!(value["rows"][2]["fastest"], "gossip");
}

#[test]
fn the_fastest_of_each_row_is_marked() {
    let survey = survey();
    let (plain, bold) = (text(&survey, false), text(&survey, true));
    assert_eq!(bold.replace("\x1b[1m", "").replace("\x1b[0m", ""), plain);
    let row = |text: &str| text.lines().find(|l| l.starts_with("cities  ")).unwrap().to_owned();
    assert!(row(&plain).contains("1.50*") && !row(&plain).contains("2.17*"), "{}", row(&plain));
    assert!(row(&bold).contains("\x1b[1m1.50\x1b[0m*"));
    assert_eq!(
        line(&survey.rows[1]),
        "cities, 1,000 nodes, 36 kB, 1,000 Mbit/s, 1 % loss: fragcast 1.08* · turbine 2.33 · rotor \
         1.75 · gossip 1.50 · direct 4.86"
    );
}

#[test]
fn of_two_with_the_same_mean_neither_is_behind() {
    let mut survey = survey();
    for row in &mut survey.rows {
        let mean = row.protocols["gossip"].times.mean;
        row.protocols.get_mut("direct").unwrap().times.mean = mean;
        row.protocols.get_mut("fragcast").unwrap().times.mean = mean;
    }
    assert!(text(&survey, false).contains("fragcast is the fastest in all 4 rows."));
    assert_eq!(json(&survey)["rows"][0]["fastest"], "fragcast");
}

#[test]
fn json_has_the_numbers_of_a_comparison_in_every_row() {
    let value = json(&survey());
    assert_eq!(value["digest"].as_str().unwrap().len(), 64);
    let row = &value["rows"][2];
    assert_eq!((&row["network"], &row["nodes"]), (&json!("aws-rtt-p50"), &json!(990)));
    assert_eq!((&row["kb"], &row["uplink_mbit"]), (&json!(1_000.0), &json!(1_000.0)));
    assert_eq!(row["loss"], json!(0.0));
    for name in ["limit", "relayed_limit", "fragcast", "gossip", "turbine", "rotor", "direct"] {
        let protocol = &row["protocols"][name];
        assert!(protocol["ratio"]["mean"].is_number(), "{name}");
        assert!(protocol["ratio"]["worst_leader"].is_number(), "{name}");
        assert!(protocol["missed"].is_number() && protocol["cdf"].is_null(), "{name}");
        assert!(protocol["bytes_per_payload_byte"].is_number(), "{name}");
    }
    // Settings of every row, and no other.
    assert_eq!(value["settings"]["seed"], "1");
    assert!(value["settings"]["network.nodes"].is_null());
    assert_eq!(value["settings"]["command"], "netsim table --kb 3.6,36");
    assert_eq!(value["notes"].as_array().unwrap().len(), 5);
}

#[test]
fn profiles_stand_each_for_itself() {
    let mut survey = survey();
    for row in &mut survey.rows {
        let ours = row.protocols.remove("fragcast").unwrap();
        let mut fast = ours.clone();
        fast.times.mean = Some(1.0);
        row.protocols.insert("fragcast-lean".into(), ours);
        row.protocols.insert("fragcast-fast".into(), fast);
    }
    let text = text(&survey, false);
    assert!(text.contains("fragcast-fast is the fastest in all 4 rows."), "{text}");
    assert!(text.contains("fragcast-lean is the fastest in 1 of 4 rows"), "{text}");
    let head = text.lines().find(|line| line.starts_with("network")).unwrap();
    let names: Vec<&str> = head.split_whitespace().skip(6).collect();
    let ours = ["relayed", "fragcast-fast", "fragcast-lean"];
    assert_eq!(names, [&ours[..], &["turbine", "rotor", "gossip", "direct"]].concat());
    let page = page(&survey);
    check_page(&page);
    assert!(page.contains("<span class=\"key p1\"><i></i>fragcast-lean</span>"));
}

#[test]
fn surveys_of_little_are_reported_all_the_same() {
    let empty = Survey::of(Vec::new(), Vec::new());
    let mut alone = survey();
    let mut peers = survey();
    for row in &mut alone.rows {
        row.protocols.retain(|name, _| ["limit", "fragcast"].contains(&name.as_str()));
    }
    for row in &mut peers.rows {
        row.protocols.remove("fragcast");
    }
    let mut none = survey();
    none.rows.truncate(1);
    none.rows[0].protocols = BTreeMap::new();
    for survey in [&empty, &alone, &peers, &none] {
        let text = text(survey, true);
        assert!(text.contains("digest") && !text.contains("NaN"), "{text}");
        check_page(&page(survey));
        assert!(json(survey)["rows"].is_array());
    }
    assert!(text(&alone, false).contains("fragcast ran alone"));
    assert!(!text(&peers, false).contains("fragcast"));
    // One that is missed by all is not in a block of its own.
    let mut whole = survey();
    whole.rows.iter_mut().flat_map(|row| row.protocols.values_mut()).for_each(|p| p.missed = 0);
    assert!(text(&whole, false).contains("missed: nobody, in any row"));
}

#[test]
fn hostile_names_stay_names_in_a_survey() {
    let mut survey = survey();
    let hostile = "<b>&\"x'\x1b[2J";
    survey.rows[0].network = hostile.into();
    survey.rows[0].notes = vec![hostile.into()];
    survey.digest = hostile.into();
    let page = page(&survey);
    check_page(&page);
    assert!(!page.contains("<b>&") && page.contains("&lt;b&gt;&amp;&quot;x&#39;"));
    assert!(!text(&survey, false).contains('\x1b'));
    assert!(!line(&survey.rows[0]).contains('\x1b'));
}
