use super::*;
use proptest::prelude::*;
use serde_json::{json, Value};

/// All items of `input` given in pieces of at most `piece` bytes.
fn items(input: &[u8], piece: usize) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut out = Vec::new();
    for mut chunk in input.chunks(piece.max(1)) {
        while let Some(item) = parser.next(&mut chunk) {
            out.push(item);
        }
        assert!(chunk.is_empty());
    }
    out
}

fn errors(input: &[u8]) -> Vec<String> {
    items(input, usize::MAX).into_iter().filter_map(Result::err).collect()
}

#[test]
fn values_follow_one_another() {
    let got = items(b"{'a': [1, -2.5, 'x\\'y\"', \"\\u00e9\\ud83d\\ude00\", true, null]}[]{}7 ", usize::MAX);
    let want = [json!({"a": [1, -2.5, "x'y\"", "é😀", true, null]}), json!([]), json!({}), json!(7)];
    assert_eq!(got, want.map(Ok));
}

#[test]
fn structure_errors() {
    for (input, want) in [
        ("}", "expecting value"),
        ("{]", "expecting value"),
        ("{\"a\"}", "missing : in object pair"),
        ("{\"a\":1,}", "expecting value"),
        ("{1:2}", "key is not a string in object"),
        ("{[1]:1}", "key is not a string in object"),
        ("[1,]", "expecting value"),
        ("[1 2]", "expected separator in list"),
        ("{\"a\":1 \"b\":2}", "expected separator in dict"),
        ("{\"a\":1,\"a\":2}", "duplicate key"),
        ("{\"a\":1,\"a\"}", "missing : in object pair"),
        ("[nulll]", "invalid keyword 'nulll'"),
        ("[\"\\q\"]", "invalid escape sequence in string"),
        ("[\"\\ud800x\"]", "\\ud800 is not a valid Unicode character"),
        ("[\"\\u12\"]", "\\u12\" is not a valid Unicode character"),
        ("[\"\u{fdd0}\"]", "invalid UTF-8 sequence in string"),
    ] {
        assert_eq!(errors(input.as_bytes()), [format!("JSON parse error, {want}")], "{input}");
    }
    assert_eq!(errors(b"[\"\xed\xa0\x80\"]"), ["JSON parse error, invalid UTF-8 sequence in string"]);
    assert_eq!(items(b"[\"\xc0\x80\"]", 1), [Ok(json!(["\0"]))]);
}

#[test]
fn recovery_after_stray_bytes() {
    let stray = |t: &str| Err(format!("JSON parse error, stray '{t}'"));
    assert_eq!(items(b"& true \"x\" \n{}", 3), [stray("&"), Ok(json!({}))]);
    assert_eq!(items(b"&\x01{}", 3), [stray("&"), stray("\u{1}"), Ok(json!({}))]);
    assert_eq!(items(b"\xff{}", 1), [stray("\u{fffd}"), Ok(json!({}))]);
    assert_eq!(items(b"{\"a\":\xff{}", 1), [stray("\u{fffd}"), Ok(json!({}))]);
    assert_eq!(items(b"[1.]\n", 2), [stray("1.]")]);
    assert_eq!(items(b"[01]\n", 2), [stray("01"), Err("JSON parse error, expecting value".into())]);
    assert_eq!(items(b"\0\n", 2), [stray("")]);
}

#[test]
fn limits() {
    let deep = |n| [vec![b'['; n], vec![b']'; n]].concat();
    assert!(items(&deep(1024), 4096)[0].is_ok());
    let got = items(&deep(1025), 4096);
    assert_eq!(got[0], Err("JSON nesting depth limit exceeded".into()));
    assert_eq!(got.len(), 1026);
    let many = [b"[".to_vec(), b"1,".repeat((1 << 20) + 1), b"1]\n{}".to_vec()].concat();
    let got = items(&many, 4096);
    assert_eq!(got[0], Err("JSON token count limit exceeded".into()));
    assert_eq!(got.len(), 6);
    let long = [b"\"".to_vec(), vec![b'a'; 65 << 20], b"\"\n{}".to_vec()].concat();
    let got = items(&long, 1 << 16);
    assert_eq!(got[0], Err("JSON token size limit exceeded".into()));
    assert_eq!(got[1].as_ref().map_err(String::len), Err(1041));
    assert_eq!(got.len(), 4);
}

#[test]
fn junk_is_cheap() {
    for byte in [b'a', b'&', b'{', b'"', b'0', b'\n', b'\\'] {
        items(&vec![byte; 1 << 20], 4096);
    }
}

#[test]
fn numbers() {
    let text =
        "[1e20, 1.0, -0.0, 1e-5, 1e-4, 9223372036854775808, 18446744073709551616, -9223372036854775809, \
                1e16, 1e17, 0.1, 1.5e300]";
    let want = "[1e+20, 1, -0, 1.0000000000000001e-05, 0.0001, 9223372036854775808, 1.8446744073709552e+19, \
                -9.2233720368547758e+18, 10000000000000000, 1e+17, 0.10000000000000001, 1.5000000000000001e+300]";
    let got = items(text.as_bytes(), 5).remove(0).unwrap();
    assert_eq!(to_string(&got, Style::Compact), want);
}

#[test]
fn output_style() {
    let value = json!({"a": [1, "é😀\u{7f}\u{1}\n\"\\/"], "b": {}});
    assert_eq!(
        to_string(&value, Style::Compact),
        r#"{"a": [1, "\u00E9\uD83D\uDE00\u007F\u0001\n\"\\/"], "b": {}}"#
    );
    assert_eq!(
        to_string(&json!({"a": [], "b": {"c": 1}}), Style::Pretty),
        "{\r\n    \"a\": [\r\n    ],\r\n    \"b\": {\r\n        \"c\": 1\r\n    }\r\n}"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        "[a-zé\\\\\"\n 😀]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        input in prop::collection::vec(
            prop::sample::select(&b"{}[]:,\"'\\ \n\taetrue0123.-+eu\xff\xfe\xc3\x80\x00\x01&"[..]), 0..200),
        piece in 1usize..9,
    ) {
        prop_assert_eq!(items(&input, piece), items(&input, usize::MAX));
    }

    #[test]
    fn what_is_written_reads_back(value in any_json(), piece in 1usize..9) {
        for style in [Style::Compact, Style::Pretty] {
            let text = to_string(&value, style) + "\n";
            let got = items(text.as_bytes(), piece);
            // Whole doubles are written without a point and so come back as integers.
            prop_assert_eq!(got.len(), 1);
            let back = to_string(got[0].as_ref().unwrap(), style) + "\n";
            prop_assert_eq!(back.replace("-0", "0"), text.replace("-0", "0"));
        }
    }
}
