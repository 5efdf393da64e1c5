use proptest::prelude::*;
use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    let mut documents = parse(text, "x.yaml").unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).value
}

fn problem(text: &str) -> String {
    parse(text, "x.yaml").unwrap_err().to_string()
}

#[test]
fn scalars_mean_what_kubectl_takes_them_for() {
    let text = "
a: y
b: yes
c: 0440
d: 0o17
e: 1_000
f: 1.0
g: 1e3
h: 2001-01-01
i: !!str 123
j: 0x1F
k: 0b11
l: ~
m: On
n: n
o: 12345678901234567890
q: +5
s: 08
t: .5
u: 1:30
v: \"\\u00e9\"
w: !!binary aGk=
1: one
true: two
";
    let expected = json!({
        "a": true, "b": true, "c": 288, "d": 15, "e": 1000, "f": 1, "g": 1000, "h": "2001-01-01", "i": "123", "j": 31,
        "k": 3, "l": null, "m": true, "false": false, "o": 12345678901234567890u64, "q": 5, "s": 8, "t": 0.5,
        "u": "1:30", "v": "é", "w": "hi", "1": "one", "true": "two",
    });
    assert_eq!(value(text), expected);
}

#[test]
fn block_scalars_keep_their_lines() {
    let text = "a: |\n  one\n  two\nb: >-\n  one\n  two\nc: |+\n  x\n\n";
    assert_eq!(value(text), json!({"a": "one\ntwo\n", "b": "one two", "c": "x\n\n"}));
}

#[test]
fn merge_keys_fill_in_what_the_map_lacks() {
    let text = "base: &b {a: 1, c: {d: 4}}\nother: &o {a: 9, e: 5}\ndata:\n  <<: [*b, *o]\n  c: 2\nlist: [*b]\n";
    let expected = json!({
        "base": {"a": 1, "c": {"d": 4}}, "other": {"a": 9, "e": 5}, "data": {"c": 2, "a": 1, "e": 5},
        "list": [{"a": 1, "c": {"d": 4}}],
    });
    assert_eq!(value(text), expected);
}

#[test]
fn documents_are_split_and_empty_ones_left_out() {
    let documents = parse("# only a comment\n---\na: 1\n---\n---\n# none\n---\nb: 2\n...\n", "x").unwrap();
    let values: Vec<_> = documents.iter().map(|document| document.value.clone()).collect();
    assert_eq!(values, [json!({"a": 1}), json!({"b": 2})]);
    assert_eq!(documents[1].start(), Place { line: 8, column: 1 });
}

#[test]
fn every_field_knows_its_place() {
    let text = "spec:\n  containers:\n  - name: web\n    image: x\n  - {name: log, imagee: y}\n";
    let document = parse(text, "x.yaml").unwrap().remove(0);
    let at = |path: &str| (document.position_of(path).line, document.position_of(path).column);
    assert_eq!(at("spec"), (1, 1));
    assert_eq!(at("spec.containers[0].image"), (4, 5));
    assert_eq!(at("spec.containers[1].imagee"), (5, 17));
    assert_eq!(at("spec.containers[1].missing.deeper"), (5, 5));
    let value = document.value_position_of("spec.containers[0].image");
    assert_eq!((value.line, value.column), (4, 12));
}

#[test]
fn json_is_read_with_places_too() {
    let text = "{\n\t\"a\": {\"b\": [1, {\"c\": \"\\ud83d\\ude00\"}]}\n}\n{\"second\": true}\n";
    let documents = parse(text, "x.json").unwrap();
    assert_eq!(documents[0].value, json!({"a": {"b": [1, {"c": "😀"}]}}));
    let place = documents[0].position_of("a.b[1].c");
    assert_eq!((place.line, place.column), (2, 18));
    assert_eq!(documents[1].value, json!({"second": true}));
    assert_eq!(value("{a: 1, b: [x, z]}"), json!({"a": 1, "b": ["x", "z"]}));
    assert_eq!(problem("{\"a\": 1,\n \"a\": 2}"), "x.yaml:2:2: key \"a\" already set in map");
}

#[test]
fn errors_point_at_the_place() {
    for (text, message) in [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: key \"a\" already set in map"),
        ("a: .inf\n", "x.yaml:1:4: .inf has no form in JSON: quote it if it is meant as text"),
        ("a:\n  <<: 3\n", "x.yaml:2:7: map merge requires map or sequence of maps as the value"),
        ("a: &x [*x]\n", "x.yaml:1:8: an alias may not stand inside its own anchor"),
        ("x: {[a]: 1}\n", "x.yaml:1:5: a field's name must be text, a number or a boolean"),
    ] {
        assert_eq!(problem(text), message, "{text}");
    }
    assert!(problem("a: b: c\n").starts_with("x.yaml:1:"));
    assert!(problem("a: *missing\n").starts_with("x.yaml:1:"));
    assert!(problem("a: [1\n").starts_with("x.yaml:"));
    assert!(problem("a:\n\t- b\n").starts_with("x.yaml:2:"));
}

#[test]
fn aliases_cannot_blow_up() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(problem(&text).contains("more than 400000 values"));
    assert!(problem(&"[".repeat(10_000)).contains("nest deeper than 200 levels"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-z0-9:#&*!|>'\"%@`{}\\[\\], \n\t\\\\é~<.]{0,60}") {
        let _ = parse(&text, "x");
    }

    #[test]
    fn any_json_reads_back(value in any_json()) {
        let text = serde_json::to_string_pretty(&json!({"v": value})).unwrap();
        prop_assert_eq!(&parse(&text, "x").unwrap()[0].value["v"], &value);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(Value::Null)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z.]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
