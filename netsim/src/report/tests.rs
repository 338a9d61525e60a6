//! Reports of invented comparisons: their content, and their robustness.

use std::collections::BTreeMap;

use super::sample::{comparison, keep, nothing, sweep};
use super::{html, json, sweep as sweeps, table};
use crate::results::{Comparison, LIMIT, ORDER, PlaceRow, RELAYED_LIMIT, Sweep, Table};

fn text(comparison: &Comparison, bold: bool) -> String {
    let mut out = Vec::new();
    table::print(&mut out, comparison, bold).unwrap();
    String::from_utf8(out).unwrap()
}

fn sweep_text(sweep: &Sweep) -> String {
    let mut out = Vec::new();
    sweeps::table(&mut out, sweep, false).unwrap();
    String::from_utf8(out).unwrap()
}

/// Names that would be markup or control a terminal if they were not escaped.
const HOSTILE: &str = "<b>&\"x'\x1b[2J";

fn hostile() -> Comparison {
    let mut comparison = comparison();
    comparison.digest = HOSTILE.into();
    comparison.settings =
        vec![("command".into(), HOSTILE.into()), (HOSTILE.into(), HOSTILE.into())];
    comparison.notes = vec![HOSTILE.into()];
    comparison.places[0].name = HOSTILE.into();
    let table = &mut comparison.tables[0];
    table.title = HOSTILE.into();
    for protocol in table.protocols.values_mut() {
        protocol.detail = HOSTILE.into();
        protocol.busiest.1 = HOSTILE.into();
        protocol.tried = vec![(HOSTILE.into(), Some(1.0))];
    }
    let copy = table.protocols["gossip"].clone();
    table.protocols.insert(HOSTILE.into(), copy);
    comparison
}

/// Comparisons without the values that are optional.
fn broken() -> Vec<Comparison> {
    let empty = Comparison {
        digest: String::new(),
        settings: Vec::new(),
        places: Vec::new(),
        tables: Vec::new(),
        notes: Vec::new(),
    };
    let no_protocol = Table { title: "none".into(), protocols: BTreeMap::new() };
    let mut all: BTreeMap<_, _> = ORDER.map(|name| (name.to_owned(), nothing())).into();
    all.insert(RELAYED_LIMIT.into(), nothing());
    let nobody = Table { title: "nobody arrives".into(), protocols: all.clone() };
    let mut peers_only = all;
    for name in ["fragcast", LIMIT, RELAYED_LIMIT] {
        peers_only.remove(name);
    }
    let peers_only = Table { title: "peers".into(), protocols: peers_only };
    let place = |position| PlaceRow { name: "p".into(), position, nodes: 0 };
    let places = vec![place(Some((f64::NAN, 0.0))), place(Some((91.0, 500.0))), place(None)];
    let mut unplaced = comparison();
    unplaced.places.iter_mut().for_each(|place| place.position = None);
    let mut one_place = comparison();
    one_place.places.truncate(1);
    vec![
        Comparison { tables: vec![no_protocol], ..empty.clone() },
        Comparison { tables: vec![nobody], places, ..empty.clone() },
        Comparison {
            tables: vec![peers_only],
            places: vec![place(Some((1.0, 2.0)))],
            ..empty.clone()
        },
        empty,
        unplaced,
        one_place,
    ]
}

/// Tags that have no end by the rules of HTML.
const VOID: [&str; 2] = ["meta", "!doctype"];

/// Describes errors in the nesting of tags or in their quotes.
fn unbalanced(page: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let end = rest.find('>')?;
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if !tag.matches('"').count().is_multiple_of(2) || tag.contains('<') {
            return Some(format!("quotes of <{tag}>"));
        }
        let name = tag.trim_start_matches('/').split([' ', '/']).next()?;
        if tag.starts_with('/') {
            let last = open.pop();
            if last != Some(name) {
                return Some(format!("</{name}> closes {last:?}"));
            }
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
            if name == "script" || name == "style" {
                rest = &rest[rest.find(&format!("</{name}>"))?..];
            }
        }
    }
    open.pop().map(|tag| format!("<{tag}> stays open"))
}

/// The visible part of a page, without style sheet and script.
fn visible(page: &str) -> String {
    let mut out = page.to_owned();
    for name in ["style", "script"] {
        let start = out.find(&format!("<{name}>")).unwrap();
        let end = out.find(&format!("</{name}>")).unwrap();
        out.replace_range(start..end, "");
    }
    out
}

pub(super) fn check_page(page: &str) {
    assert_eq!(unbalanced(page), None);
    assert!(!page.contains("http://") && !page.contains("https://"), "loads something");
    assert!(!page.contains("<script src") && !page.contains("@import") && !page.contains("url("));
    let visible = visible(page);
    for word in ["NaN", "inf", "None", "Some("] {
        assert!(!visible.contains(word), "{word}");
    }
}

#[test]
fn the_checker_of_tags_finds_what_is_wrong() {
    assert_eq!(unbalanced("<p>a<meta x=\"1\"><g/></p><style>a>b</style>"), None);
    for page in ["<p>", "<p></b>", "</p>", "<p><b></p></b>", "<p a=\"><p\">"] {
        assert!(unbalanced(page).is_some(), "{page}");
    }
}

#[test]
fn a_table_is_what_it_was() {
    let text = text(&comparison(), false);
    keep("table.txt", &text);
    assert_eq!(text, include_str!("tests/table.txt"), "see NETSIM_PAGES in sample.rs");
    assert!(text.lines().all(|line| line.chars().count() < 120));
}

#[test]
fn the_best_of_each_column_is_bold_on_request() {
    let (plain, bold) = (text(&comparison(), false), text(&comparison(), true));
    assert_eq!(bold.replace("\x1b[1m", "").replace("\x1b[0m", ""), plain);
    let line = |name: &str| bold.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("gossip").contains("\x1b[1m90.0\x1b[0m"), "{}", line("gossip"));
    assert!(line("direct").contains("\x1b[1m1.38\x1b[0m"));
    assert!(!line("limit").contains('\x1b'));
}

#[test]
fn columns_move_together_before_they_wrap() {
    let mut comparison = comparison();
    for protocol in comparison.tables[0].protocols.values_mut() {
        protocol.times.mean = protocol.times.mean.map(|ms| ms * 1e3);
        protocol.missed += 1_000_000;
        protocol.degree = (9_999, Some(10_000));
    }
    let text = text(&comparison, false);
    assert!(text.lines().all(|line| line.chars().count() < 120), "{text}");
    assert!(text.contains("9999/10000") && text.contains("1,000,003"));
}

#[test]
fn all_meshes_of_gossip_fit_a_line() {
    let mut comparison = comparison();
    let gossip = comparison.tables[0].protocols.get_mut("gossip").unwrap();
    gossip.tried = (6..=12).map(|d| (format!("D = {d}"), Some(150.0 - f64::from(d)))).collect();
    let text = text(&comparison, false);
    assert!(text.lines().any(|line| line.contains("D=6: 144.0") && line.contains("D=12: 138.0")));
}

#[test]
fn json_keeps_the_contract() {
    let value = json::value(&comparison());
    assert_eq!(value["digest"].as_str().unwrap().len(), 64);
    let mean = |value: &serde_json::Value| value["mean"].as_f64().unwrap();
    for name in ORDER.into_iter().chain([RELAYED_LIMIT]) {
        let protocol = &value["protocols"][name];
        for key in ["mean", "p50", "p90", "missed", "bytes_per_payload_byte", "next_leader_p99"] {
            assert!(protocol[key].is_number(), "{name} {key}: {}", protocol[key]);
        }
        for key in ["mean", "p50", "p90", "worst_leader"] {
            assert!(protocol["ratio"][key].is_number(), "{name} {key}");
        }
    }
    assert!((mean(&value["protocols"]["gossip"]) - 90.0).abs() < 1e-6);
    assert!(value["protocols"]["direct"]["p99"].is_null(), "more than 1 % missed");
    assert_eq!(value["protocols"]["gossip"]["tried"][2]["setting"], "D = 12");
    assert_eq!(value["protocols"]["fragcast"]["busiest"]["node"], "n0412");
    assert_eq!(value["tables"][0]["protocols"], value["protocols"]);
    assert_eq!(value["tables"].as_array().unwrap().len(), 2);
    assert_eq!(value["settings"]["seed"], "7");
    assert_eq!(value["places"][0]["name"], "Amsterdam");
    assert_eq!(value.to_string(), json::value(&comparison()).to_string());
    keep("report.json", &value.to_string());
}

#[test]
fn a_page_says_who_wins_in_words() {
    let page = html::page(&comparison());
    keep("page.html", &page);
    check_page(&page);
    for words in [
        "<h1>fragcast reaches half of the nodes in 136\u{a0}ms, 2.16\u{a0}× the limit; the \
         fastest peer, gossip, in 90.1\u{a0}ms</h1>",
        "The best peer by that is gossip with 90 ms, 31 % less.",
        "No node missed a message.",
        "When nodes have a message",
        "Where it arrives when",
        "The busiest uplink",
        "gossip: settings tried",
        "based-op&#39;s 8",
        "never: too many missed",
        "7Np41oeY…KCT4K2",
        "<span>netsim</span> <span>compare</span> <span>--nodes</span> <span>1000</span>",
        &comparison().digest,
    ] {
        assert!(page.contains(words), "{words}");
    }
    for n in 0..6 {
        assert!(page.contains(&format!("<g class=\"p{n} s{n}\">")), "colour {n} is not drawn");
    }
    assert_eq!(page.matches("<div class=\"map ").count(), 6);
    assert_eq!(page.matches("class=\"place\"").count(), 6 * 60);
}

#[test]
fn a_faster_protocol_of_ours_is_said_to_be_so() {
    let mut comparison = comparison();
    let ours = comparison.tables[0].protocols.get_mut("fragcast").unwrap();
    ours.times.mean = Some(60.0);
    ours.missed = 1_234;
    let page = html::page(&comparison);
    assert!(page.contains("gossip with 90 ms, 50 % more."), "{page}");
    assert!(page.contains("1,234 of 12,000 pairs of message and node never completed."));
}

#[test]
fn the_fastest_peer_is_that_of_the_time_in_question() {
    let mut comparison = comparison();
    let rotor = comparison.tables[0].protocols.get_mut("rotor").unwrap();
    rotor.times.p50 = Some(80.0);
    let page = html::page(&comparison);
    assert!(
        page.contains("the fastest peer, rotor, in 80\u{a0}ms") && page.contains("is gossip with")
    );
}

#[test]
fn numbers_below_the_limit_are_explained() {
    let why = "where delays break the triangle inequality";
    let plain = comparison();
    let sweep = |comparison: &Comparison| Sweep {
        parameter: "x".into(),
        points: vec![(0.0, comparison.clone())],
    };
    for text in [text(&plain, false), html::page(&plain), sweep_text(&sweep(&plain))] {
        assert!(!text.contains(why), "nobody is ahead");
    }
    let mut ahead = comparison();
    let protocols = &mut ahead.tables[0].protocols;
    let limit = protocols["limit"].next_leader_p99;
    protocols.get_mut("gossip").unwrap().ratio.p99 = Some(0.97);
    protocols.get_mut("rotor").unwrap().ratio.p99 = Some(0.998);
    protocols.get_mut("fragcast").unwrap().next_leader_p99 = limit.map(|ms| ms * 0.9);
    let pages = [html::page(&ahead), sweeps::page(&sweep(&ahead))];
    for text in [text(&ahead, false), sweep_text(&sweep(&ahead))].iter().chain(&pages) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains("below the limit's (fragcast and gossip)")
                || text.contains("below the limit&#39;s (fragcast and gossip)"),
            "{text}"
        );
        assert!(text.contains(why));
    }
    pages.iter().for_each(|page| check_page(page));
}

#[test]
fn what_relays_allow_is_beside_the_limit() {
    let comparison = comparison();
    let table = text(&comparison, false);
    let names: Vec<&str> = table.lines().filter_map(|line| line.split("  ").next()).collect();
    let limit = names.iter().position(|name| *name == "limit").unwrap();
    assert_eq!(names[limit + 1], "relayed");
    let sentence = "a mean of 57 ms is possible, 0.95 × the limit; as multiples of that: \
                    fragcast 2.28 ×, gossip 1.58 ×.";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&table).contains(sentence), "{table}");
    let page = html::page(&comparison);
    assert!(words(&page).contains(sentence));
    assert!(page.contains("<g class=\"p7 s7\">"), "its curve is not drawn");
    assert!(!table.contains(RELAYED_LIMIT) && !page.contains(RELAYED_LIMIT), "a name for scripts");
    // Nothing is said where it is missing.
    let mut without = comparison;
    without.tables.iter_mut().for_each(|table| {
        table.protocols.remove(RELAYED_LIMIT);
    });
    assert!(!text(&without, false).contains("is possible"));
}

#[test]
fn axes_and_maps_fit_what_they_show() {
    let page = html::page(&comparison());
    assert!(!page.contains("ms (logarithmic)") && page.contains(">120°W<"));
    let mut comparison = comparison();
    // Lisbon to Helsinki, with one protocol so slow that it would hide the others.
    comparison.places.truncate(18);
    let direct = comparison.tables[0].protocols.get_mut("direct").unwrap();
    direct.cdf.iter_mut().for_each(|(ms, _)| *ms *= 20.0);
    direct.busiest.0 = 3.0;
    let page = html::page(&comparison);
    keep("other.html", &page);
    check_page(&page);
    assert!(page.contains("ms (logarithmic)") && !page.contains(">120°W<"));
    assert!(page.contains(">15°E<"));
}

#[test]
fn a_world_without_coordinates_has_no_map_and_says_so() {
    let mut comparison = comparison();
    comparison.places.iter_mut().for_each(|place| place.position = None);
    let page = html::page(&comparison);
    assert!(page.contains("but no coordinates") && !page.contains("<div class=\"map "));
}

#[test]
fn hostile_names_stay_names() {
    let comparison = hostile();
    let page = html::page(&comparison);
    check_page(&page);
    assert!(!page.contains("<b>&") && page.contains("&lt;b&gt;&amp;&quot;x&#39;"));
    assert!(!page.contains('\x1b') && !text(&comparison, false).contains('\x1b'));
    assert_eq!(json::value(&comparison)["digest"], HOSTILE);
    let sweep = Sweep { parameter: HOSTILE.into(), points: vec![(1.0, comparison)] };
    let page = sweeps::page(&sweep);
    check_page(&page);
    assert!(!page.contains("<b>&") && page.contains("&lt;b&gt;&amp;&quot;x&#39;"));
    assert!(!sweep_text(&sweep).contains('\x1b'));
}

#[test]
fn what_is_missing_is_a_dash() {
    for (i, comparison) in broken().iter().enumerate() {
        let page = html::page(comparison);
        keep(&format!("broken-{i}.html"), &page);
        check_page(&page);
        let text = text(comparison, true);
        assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
        assert!(text.contains("digest"));
        assert!(json::value(comparison)["protocols"].is_object());
        let sweep = Sweep {
            parameter: "x".into(),
            points: vec![(0.0, comparison.clone()), (f64::NAN, comparison.clone())],
        };
        check_page(&sweeps::page(&sweep));
        let text = sweep_text(&sweep);
        assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
        assert_eq!(sweeps::json(&sweep)["points"].as_array().unwrap().len(), 2);
    }
    assert!(!html::page(&broken()[1]).contains("No node missed"), "there were no messages");
    assert!(text(&broken()[1], false).lines().any(|line| {
        line.starts_with("rotor") && line.matches('–').count() == 10 && line.ends_with(" 0")
    }));
}

#[test]
fn a_sweep_has_a_row_for_each_value() {
    let sweep = sweep();
    let text = sweep_text(&sweep);
    keep("sweep.txt", &text);
    keep("sweep.html", &sweeps::page(&sweep));
    assert_eq!(text, include_str!("tests/sweep.txt"), "see NETSIM_PAGES in sample.rs");
    let value = sweeps::json(&sweep);
    assert_eq!(value["parameter"], "loss, %");
    assert_eq!(value["points"][3]["value"], 2.0);
    assert!(value["points"][3]["protocols"]["fragcast"]["ratio"]["mean"].is_number());
    let page = sweeps::page(&sweep);
    check_page(&page);
    assert_eq!(page.matches("<figure").count(), 3);
    // The limit is a line in charts of ratios, in both widths.
    assert_eq!(page.matches("<g class=\"p0 s0\">").count(), 4);
    assert!(page.contains("the mean of fragcast goes from 2.17 to 2.38 × the limit"), "{page}");
    let one = Sweep { parameter: "x".into(), points: sweep.points[..1].to_vec() };
    assert!(sweeps::page(&one).contains("the mean of fragcast stays 2.17 × the limit"));
    // Settings that differ between points are not settings of the sweep.
    assert!(page.contains("12 % factor per pair") && !page.contains("loss here"));
    let none = Sweep { parameter: "x".into(), points: Vec::new() };
    check_page(&sweeps::page(&none));
    assert!(sweep_text(&none).contains("mean × limit"));
}
