use super::*;
use crate::{qapi_enum, qapi_struct, qapi_union};
use serde_json::json;

qapi_enum! {
    pub enum Color {
        Red = "red",
        Blue = "dark-blue",
    }
}
qapi_struct! {
    pub struct Inner {
        data: i64,
    }
    pub struct Outer {
        a_b: Vec<Inner>,
        c as "c_d": Option<Color>,
        size: Option<u8>,
        big: Option<u64>,
        next: Option<Box<Outer>>,
    }
}
qapi_union! {
    pub union Key("type") {
        "number" => Number(Inner),
        "none" => None(Empty),
    }
}

fn read<T: FromQapi>(value: Value) -> Result<T, String> {
    T::from_qapi(value, &Path::Root).map_err(|e| e.desc)
}

#[test]
fn strict_reading() {
    let ok: Outer = read(json!({"a-b": [{"data": 1}], "c_d": "dark-blue", "big": -1})).unwrap();
    assert_eq!(ok.c, Some(Color::Blue));
    assert_eq!(ok.big, Some(u64::MAX));
    let bad = |v| read::<Outer>(v).unwrap_err();
    assert_eq!(bad(json!({})), "Parameter 'a-b' is missing");
    assert_eq!(bad(json!({"a-b": 1})), "Invalid parameter type for 'a-b', expected: array");
    assert_eq!(bad(json!({"a-b": [1]})), "Invalid parameter type for 'a-b[0]', expected: object");
    assert_eq!(
        bad(json!({"a-b": [{"data": 1.5}]})),
        "Invalid parameter type for 'a-b[0].data', expected: integer"
    );
    assert_eq!(
        bad(json!({"a-b": [{"data": u64::MAX}]})),
        "Invalid parameter type for 'a-b[0].data', expected: integer"
    );
    assert_eq!(bad(json!({"a-b": [{"data": 1, "x": 1}]})), "Parameter 'a-b[0].x' is unexpected");
    assert_eq!(bad(json!({"a-b": [], "y": 1})), "Parameter 'y' is unexpected");
    assert_eq!(bad(json!({"a-b": [], "c_d": "x"})), "Parameter 'c_d' does not accept value 'x'");
    assert_eq!(bad(json!({"a-b": [], "size": 256})), "Parameter 'size' expects uint8_t");
    assert_eq!(bad(json!({"a-b": [], "size": -1})), "Parameter 'size' expects uint8_t");
    assert_eq!(bad(json!({"a-b": [], "size": "1"})), "Parameter 'size' expects uint64");
    assert_eq!(bad(json!({"a-b": [], "next": {}})), "Parameter 'next.a-b' is missing");
    assert_eq!(read::<Vec<Color>>(json!(["x"])).unwrap_err(), "Parameter 'null' does not accept value 'x'");
}

#[test]
fn unions() {
    assert_eq!(read::<Key>(json!({"type": "number", "data": 3})).unwrap(), Key::Number(Inner { data: 3 }));
    assert_eq!(read::<Key>(json!({"type": "none"})).unwrap(), Key::None(Empty));
    let bad = |v| read::<Vec<Key>>(json!([v])).unwrap_err();
    assert_eq!(bad(json!({})), "Parameter '[0].type' is missing");
    assert_eq!(bad(json!({"type": "z"})), "Parameter 'type' does not accept value 'z'");
    assert_eq!(bad(json!({"type": "none", "data": 1})), "Parameter '[0].data' is unexpected");
    assert_eq!(Key::Number(Inner { data: 3 }).to_qapi(), Some(json!({"type": "number", "data": 3})));
}

#[test]
fn writing_leaves_out_what_is_absent() {
    let value =
        Outer { a_b: vec![Inner { data: 2 }], c: Some(Color::Red), size: None, big: None, next: None };
    assert_eq!(value.to_qapi(), Some(json!({"a-b": [{"data": 2}], "c_d": "red"})));
}

#[test]
fn schema() {
    let mut schema = Schema::new();
    assert_eq!(Option::<Vec<Outer>>::describe(&mut schema), "[1]");
    assert_eq!(Outer::describe(&mut schema), "1");
    let entries = schema.into_entries();
    let find = |name: &str| entries.iter().find(|e| e["name"] == name).unwrap();
    assert_eq!(
        find("1")["members"],
        json!([
            {"name": "a-b", "type": "[2]"},
            {"name": "c_d", "default": null, "type": "3"},
            {"name": "size", "default": null, "type": "int"},
            {"name": "big", "default": null, "type": "int"},
            {"name": "next", "default": null, "type": "1"},
        ])
    );
    assert_eq!(find("[2]"), &json!({"name": "[2]", "element-type": "2", "meta-type": "array"}));
    assert_eq!(find("3")["values"], json!(["red", "dark-blue"]));
    let mut schema = Schema::new();
    Key::describe(&mut schema);
    let entries = schema.into_entries();
    let union = entries.iter().find(|e| e["tag"] == "type").unwrap();
    assert_eq!(union["variants"], json!([{"case": "number", "type": "3"}, {"case": "none", "type": "0"}]));
}
