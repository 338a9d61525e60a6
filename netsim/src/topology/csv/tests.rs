use proptest::prelude::*;

use super::*;

/// The line and error of a text after the header.
fn error(rows: &str) -> (usize, LineError) {
    match parse(&format!("{HEADER}\n{rows}"), "nodes.csv").unwrap_err() {
        WorldError::Line { file, line, error } => {
            assert_eq!(file, "nodes.csv");
            (line, error)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn nodes_keep_their_order_and_share_places() {
    let text = format!(
        "{HEADER}\na,5,52.372,4.888\r\nb,0,-33.9,151.2\nc,7,52.3720,4.888\nd, 1 , 52.38, 4.9\n\
         e,1,0,-0\nf,1,-0.0,0\n"
    );
    let (nodes, places) = parse(&text, "nodes.csv").unwrap();
    let summary: Vec<_> = nodes.iter().map(|n| (n.id.as_str(), n.weight, n.place)).collect();
    assert_eq!(
        summary,
        [("a", 5, 0), ("b", 0, 1), ("c", 7, 0), ("d", 1, 2), ("e", 1, 3), ("f", 1, 3)]
    );
    let names: Vec<_> = places.iter().map(|place| place.name.as_str()).collect();
    assert_eq!(names, ["Amsterdam", "Sydney", "Amsterdam 52.38 4.9", "0 0"]);
    assert_eq!(places[1].position, Some((-33.9, 151.2)));
}

#[test]
fn errors_tell_the_line() {
    let good = "a,1,0,0\n";
    let bad = |row: &str| {
        let (line, error) = error(&format!("{good}{row}\n"));
        assert_eq!(line, 3, "{row}");
        error
    };
    assert_eq!(bad(""), LineError::Fields { fields: 1 });
    assert_eq!(bad("b,1,0"), LineError::Fields { fields: 3 });
    assert_eq!(bad("b,1,0,0,"), LineError::Fields { fields: 5 });
    assert_eq!(bad(",1,0,0"), LineError::Id);
    assert_eq!(bad("\u{1b}[2J,1,0,0"), LineError::Id);
    assert_eq!(bad(&format!("{},1,0,0", "x".repeat(65))), LineError::Id);
    assert_eq!(bad("a,1,0,0"), LineError::Duplicate { id: "a".into(), first: 2 });
    for weight in ["", "-1", "1.5", "18446744073709551616", "ten"] {
        assert_eq!(bad(&format!("b,{weight},0,0")), LineError::Weight);
    }
    assert_eq!(bad(&format!("b,{},0,0", u64::MAX)), LineError::TotalWeight);
    for degrees in ["90.01", "-91", "NaN", "inf", "", "north"] {
        assert_eq!(bad(&format!("b,1,{degrees},0")), LineError::Latitude);
    }
    for degrees in ["180.5", "-181", "nan", "1e9", ""] {
        assert_eq!(bad(&format!("b,1,0,{degrees}")), LineError::Longitude);
    }
    assert_eq!(error("a,1,0,0\nb,1,0,0"), (3, LineError::Cut));
    for header in ["", "id,weight,lat,lon\na,1,0,0\n"] {
        let error = parse(header, "nodes.csv").unwrap_err().to_string();
        assert!(error.contains("nodes.csv, line 1") && error.contains(HEADER), "{error}");
    }
}

#[test]
fn there_are_not_too_few_and_not_too_many() {
    let rows = |n: usize, step: f64| -> String {
        let row = |i: usize| format!("n{i},1,0,{}\n", i as f64 * step);
        format!("{HEADER}\n{}", (0..n).map(row).collect::<String>())
    };
    assert!(matches!(parse(&rows(1, 0.0), "f"), Err(WorldError::Nodes { nodes: 1 })));
    assert_eq!(parse(&rows(2, 0.0), "f").unwrap().1.len(), 1);
    assert_eq!(parse(&rows(MAX_NODES, 0.0), "f").unwrap().0.len(), MAX_NODES);
    let error = parse(&rows(MAX_NODES + 1, 0.0), "f").unwrap_err();
    assert!(matches!(error, WorldError::Line { line: 10_002, error: LineError::TooMany, .. }));
    assert_eq!(parse(&rows(MAX_PLACES, 0.01), "f").unwrap().1.len(), MAX_PLACES);
    let error = parse(&rows(MAX_PLACES + 1, 0.01), "f").unwrap_err();
    assert!(error.to_string().contains("2001 different coordinates"), "{error}");
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(
        rows in prop_oneof![
            ".{0,200}",
            "([ab1-9]{0,2},[0-9-]{0,3},[0-9.e-]{0,4},[0-9.e-]{0,4}\r?\n){0,8}",
        ],
        header in any::<bool>(),
    ) {
        let text = if header { format!("{HEADER}\n{rows}") } else { rows };
        if let Ok((nodes, places)) = parse(&text, "garbage") {
            prop_assert!(nodes.iter().all(|node| usize::from(node.place) < places.len()));
            prop_assert_eq!(nodes.len(), text.lines().count() - 1);
        }
    }
}
