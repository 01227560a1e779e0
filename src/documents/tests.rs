//! Both readers, whole and by pieces, good texts and bad ones.

use std::io::{self, Read};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::flow::openings;
use super::{Form, Limits, Place, ReadError, Sink, read_json, read_yaml};

const LIMITS: Limits = Limits { resource_bytes_max: 200, values_max: 50, document_bytes_max: 400 };

/// Keeps what it is given, and refuses at resource number `refuse_at`.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    resources: Vec<(usize, Option<usize>, Value)>,
    envelopes: Vec<(usize, Form, Value)>,
    refuse_at: Option<usize>,
}

impl Sink for Kept {
    type Error = &'static str;

    fn resource(&mut self, place: Place, value: Value) -> Result<(), &'static str> {
        if self.refuse_at == Some(self.resources.len()) {
            return Err("no more");
        }
        self.resources.push((place.document, place.item, value));
        Ok(())
    }

    fn envelope(&mut self, document: usize, form: Form, fields: Map<String, Value>) -> Result<(), &'static str> {
        self.envelopes.push((document, form, Value::Object(fields)));
        Ok(())
    }
}

/// Gives one byte at a time, and counts them.
struct Dribble<'a> {
    text: &'a [u8],
    given: &'a mut usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((first, rest)) = self.text.split_first().filter(|_| !buffer.is_empty()) else { return Ok(0) };
        buffer[0] = *first;
        self.text = rest;
        *self.given += 1;
        Ok(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Language {
    Json,
    Yaml,
}
use Language::{Json, Yaml};

fn read_from(language: Language, text: impl Read, kept: &mut Kept, limits: &Limits) -> Result<usize, ReadError<&'static str>> {
    match language {
        Json => read_json(text, kept, limits),
        Yaml => read_yaml(text, kept, limits),
    }
}

/// What a text comes to, however it arrives. Errors: which variant, the document, and the message.
fn read(language: Language, text: &str) -> Result<Kept, String> {
    let mut whole = Kept::default();
    let mut pieces = Kept::default();
    let told = |result: Result<usize, ReadError<_>>| match result {
        Ok(documents) => Ok(documents),
        Err(ReadError::Io(error)) => Err(format!("io: {error}")),
        Err(ReadError::Syntax { document, message }) => Err(format!("syntax in {document}: {message}")),
        Err(ReadError::TooLarge { document, message }) => Err(format!("too large in {document}: {message}")),
        Err(ReadError::Sink(error)) => Err(format!("sink: {error}")),
    };
    let result = told(read_from(language, text.as_bytes(), &mut whole, &LIMITS));
    let dribble = Dribble { text: text.as_bytes(), given: &mut 0 };
    assert_eq!(told(read_from(language, dribble, &mut pieces, &LIMITS)), result, "{text}");
    assert_eq!(pieces, whole, "{text}");
    let documents = result?;
    let mut numbers: Vec<usize> = whole.resources.iter().map(|resource| resource.0).collect();
    numbers.extend(whole.envelopes.iter().map(|envelope| envelope.0));
    assert!(numbers.iter().all(|number| *number < documents), "{text}");
    Ok(whole)
}

#[test]
fn every_form_gives_its_resources_and_their_places() {
    let list = |fields| vec![(0, Form::Items, fields)];
    let script = [
        (Json, "{\"a\": 1}", vec![(0, None, json!({"a": 1}))], vec![]),
        (
            Json,
            "{\"a\":1}{\"b\":[2]}\n null 3",
            vec![(0, None, json!({"a": 1})), (1, None, json!({"b": [2]})), (2, None, json!(3))],
            vec![],
        ),
        (
            Json,
            "[1, [2], {\"items\": [3]}]",
            vec![(0, Some(0), json!(1)), (0, Some(1), json!([2])), (0, Some(2), json!({"items": [3]}))],
            vec![(0, Form::List, json!({}))],
        ),
        (Json, "{\"items\": []}", vec![], list(json!({}))),
        (Json, "{\"items\": [1], \"kind\": \"List\"}", vec![(0, Some(0), json!(1))], list(json!({"kind": "List"}))),
        (
            Json,
            "{\"kind\": \"List\", \"items\": [1,2], \"metadata\": {\"x\": [4]}}",
            vec![(0, Some(0), json!(1)), (0, Some(1), json!(2))],
            list(json!({"kind": "List", "metadata": {"x": [4]}})),
        ),
        (Json, "{\"items\": {\"a\": []}}", vec![(0, None, json!({"items": {"a": []}}))], vec![]),
        (Json, "{\"items\": null}", vec![(0, None, json!({"items": null}))], vec![]),
        (Json, "\u{feff} {}", vec![(0, None, json!({}))], vec![]),
        (Json, " \n", vec![], vec![]),
        (Json, "", vec![], vec![]),
        (Yaml, "a: 1\nb: x\n", vec![(0, None, json!({"a": 1, "b": "x"}))], vec![]),
        (Yaml, "- 1\n- [2]\n", vec![(0, Some(0), json!(1)), (0, Some(1), json!([2]))], vec![(0, Form::List, json!({}))]),
        (
            Yaml,
            "kind: List\nitems:\n- a: 1\nmore: 2\n",
            vec![(0, Some(0), json!({"a": 1}))],
            list(json!({"kind": "List", "more": 2})),
        ),
        (Yaml, "items:\n", vec![(0, None, json!({"items": null}))], vec![]),
        (Yaml, "{\"items\": [{\"a\": 1}]}", vec![(0, Some(0), json!({"a": 1}))], list(json!({}))),
        (Yaml, "1: x\ntrue: y\n", vec![(0, None, json!({"1": "x", "true": "y"}))], vec![]),
        (Yaml, "a: &x {b: 1}\nc: *x\n", vec![(0, None, json!({"a": {"b": 1}, "c": {"b": 1}}))], vec![]),
        (Yaml, "", vec![], vec![]),
        (Yaml, "# nothing\n", vec![], vec![]),
    ];
    for (language, text, resources, envelopes) in script {
        assert_eq!(read(language, text), Ok(Kept { resources, envelopes, refuse_at: None }), "{text}");
    }
}

#[test]
fn yaml_is_cut_where_its_markers_are() {
    let script = [
        ("a\n---\nb\n", vec!["a", "b"]),
        ("---\na\n---\nb", vec!["a", "b"]),
        ("--- a\n--- b\n---\tc\n", vec!["a", "b", "c"]),
        ("--- |\n a\n --- b\n---\nc\n", vec!["a\n--- b\n", "c"]),
        ("--- >\n a\n ---\n", vec!["a ---\n"]),
        ("--- \"a\n  --- b\"\n", vec!["a --- b"]),
        ("a\r\n---\r\nb\r\n", vec!["a", "b"]),
        ("a\r---\rb\r", vec!["a", "b"]),
        ("---a\n---b\n", vec!["---a ---b"]),
        ("\u{feff}---\na\n", vec!["a"]),
        ("\u{feff}# x\n---\na\n", vec!["a"]),
        ("%YAML 1.2\n# why\n\n---\na\n...\n%YAML 1.2\n---\nb\n", vec!["a", "b"]),
        ("a\n...\nb\n... # why\n# end\n", vec!["a", "b"]),
        ("a\n...\n... # why\n---\n...\n...\nb", vec!["a", "b"]),
        ("---\n---\n# nothing\n---\n~\n---\na\n---\n", vec!["a"]),
        ("--- # why\na\n---", vec!["a"]),
    ];
    for (text, expected) in script {
        let expected: Vec<_> = expected.iter().enumerate().map(|(document, text)| (document, None, json!(text))).collect();
        assert_eq!(read(Yaml, text).map(|kept| kept.resources), Ok(expected), "{text:?}");
    }
}

#[test]
fn bad_texts_are_named_by_document_line_and_column() {
    let script = [
        (Json, "{\"a\":1,\n\"a\":2}", "syntax in 0: the key \"a\" stands twice in one object at line 2 column"),
        (Json, "[{}, {\"a\":{\"b\":1,\"b\":2}}]", "syntax in 0: the key \"b\" stands twice"),
        (Json, "{\"items\":[],\"items\":[]}", "syntax in 0: the key \"items\" stands twice"),
        (Json, "{\"items\":[],\"items\":1}", "syntax in 0: the key \"items\" stands twice"),
        (Json, "{\"items\":1,\"items\":[]}", "syntax in 0: the key \"items\" stands twice"),
        (Json, "{}\n{\"a\":", "syntax in 1: EOF while parsing a value at line 2 column 5"),
        (Json, "{\"items\":[{}", "syntax in 0: EOF while parsing a list at line 1"),
        (Json, "{\"items\":[{},]}", "syntax in 0: trailing comma at line 1"),
        (Json, "{\"items\":[{}]", "syntax in 0: EOF while parsing an object at line 1"),
        (Json, "{} x", "syntax in 1: expected value at line 1 column 4"),
        (Json, "{\"a\": NaN}", "syntax in 0: expected value"),
        (Json, "{\"a\": 1e999}", "syntax in 0: number out of range"),
        (Yaml, "a: 1\n---\nb: 1\nb: 2\n", "syntax in 1: the key \"b\" stands twice in one object at line 3 column"),
        (Yaml, "items: []\nitems: []\n", "syntax in 0: the key \"items\" stands twice"),
        (Yaml, "a\n---\n\n---\nb: [1\n", "syntax in 1: did not find expected ',' or ']' at line 6 column"),
        (Yaml, "--- \"a\n--- b\"\n", "syntax in 0: found unexpected end of stream"),
        (Yaml, "--- |\n a\n---\nb: [1\n", "syntax in 1: did not find"),
        (Yaml, "a\n... b\n---\nc", "syntax in 1: did not find expected <document start> at line 2 column 5"),
        (Yaml, "a: .nan\n", "syntax in 0: a: a number must be finite"),
        (Yaml, "a: !secret x\n", "syntax in 0: "),
        (Yaml, "a\n...\n%YAML 1.2\n", "syntax in 1: did not find expected <document start>"),
    ];
    for (language, text, expected) in script {
        let told = read(language, text).expect_err(text);
        assert!(told.starts_with(expected), "{text:?}\n  gave {told}");
    }
}

#[test]
fn what_is_held_at_one_time_is_bounded() {
    let long = |count: usize| "x".repeat(count);
    let many = |count: usize| format!("[{}0]", "0,".repeat(count));
    let levels = |last: usize| {
        let level = |n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
        format!("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}", (1..last).map(level).collect::<String>())
    };
    let script = [
        (
            Json,
            format!("{{\"items\":[{{}},\"{}\"]}}", long(200)),
            "too large in 0: the resource at /items/1 is over the limit of 200 bytes",
        ),
        (Json, format!("{{}} \"{}\"", long(200)), "too large in 1: the document is over the limit of 200 bytes"),
        (Json, format!("[{{}},{}1]", " ".repeat(200)), "too large in 0: the resource at /items/1 is over"),
        (Json, " ".repeat(300), "too large in 0: the document is over"),
        (Json, format!("[[],{}]", many(60)), "too large in 0: the resource at /items/1 is over the limit of 50 values"),
        (Json, format!("{{\"items\":[],\"a\":{}}}", many(60)), "too large in 0: the document is over the limit of 50 values"),
        (
            Json,
            format!("{{\"a\":\"{}\",\"items\":[],\"b\":\"{}\"}}", long(120), long(120)),
            "too large in 0: the document is over",
        ),
        (Json, "[".repeat(190), "too large in 0: the resource at /items/0 is over the limit of 50 values"),
        (Yaml, format!("a\n--- {}", long(400)), "too large in 1: the YAML document is over the limit of 400 bytes; separate"),
        (Yaml, "# x\n".repeat(101), "too large in 0: the YAML document is over"),
        (Yaml, format!("{}{}", "- x\n".repeat(99), "... #x\n"), "too large in 0: the YAML document is over"),
        (Yaml, levels(2), "too large in 0: the document is over the limit of 50 values"),
        (Yaml, levels(6), "too large in 0: the document is over the limit of 50 values"),
        (Yaml, "[".repeat(120), "too large in 0: the resource at /items/0 is over the limit of 50 values"),
    ];
    for (language, text, expected) in script {
        let told = read(language, &text).expect_err(&text);
        assert!(told.starts_with(expected), "{text:?}\n  gave {told}");
    }
    let fits = format!("{{\"k\":\"{0}\",\"items\":[\"{0}\",\"{0}\"],\"l\":\"\"}}{{\"m\":\"{0}\"}}", long(170));
    assert_eq!(read(Json, &fits).map(|kept| kept.resources.len()), Ok(3));
    let fits = format!("--- {0}\n--- {0}\n{1}", long(390), "--- {}\n".repeat(1000));
    assert_eq!(read(Yaml, &fits).map(|kept| kept.resources.len()), Ok(1002));
}

#[test]
fn depth_is_bounded() {
    for (language, one, expected) in [(Json, "[", "recursion limit exceeded"), (Yaml, "- ", "")] {
        let read = read_from(language, one.repeat(9_000).as_bytes(), &mut Kept::default(), &WIDE);
        let Err(ReadError::Syntax { document: 0, message }) = read else { panic!("{language:?} gave {read:?}") };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn aliases_of_many_small_documents_are_bounded_together() {
    let document = "--- [&a [1,2,3,4,5,6,7,8,9,0], *a, *a, *a, *a, *a]\n";
    let told = read(Yaml, &document.repeat(100)).expect_err("aliases");
    assert!(told.contains("is aliases that stand for too many values"), "{told}");
    assert!(read(Yaml, document).is_ok());
}

#[test]
fn a_text_is_read_no_further_than_the_sink_wants() {
    for (language, one) in [(Json, "{\"a\":1} \n"), (Yaml, "--- {a: 1}\n")] {
        let text = one.repeat(100);
        let mut given = 0;
        let mut kept = Kept { refuse_at: Some(2), ..Kept::default() };
        let dribble = Dribble { text: text.as_bytes(), given: &mut given };
        let stopped = read_from(language, dribble, &mut kept, &LIMITS);
        assert!(matches!(stopped, Err(ReadError::Sink("no more"))), "{stopped:?}");
        assert_eq!(kept.resources.len(), 2);
        assert!(given <= 4 * one.len(), "{language:?} read {given} bytes");
    }
    let list = format!("{{\"items\": [1, 2, 3{}]}}", " ".repeat(150));
    let mut given = 0;
    let mut kept = Kept { refuse_at: Some(2), ..Kept::default() };
    let stopped = read_from(Json, Dribble { text: list.as_bytes(), given: &mut given }, &mut kept, &LIMITS);
    assert!(matches!(stopped, Err(ReadError::Sink("no more"))), "{stopped:?}");
    assert!(given <= "{\"items\": [1, 2, 3 ".len(), "read {given} bytes");
}

#[test]
fn a_source_that_fails_is_told_as_such() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::TimedOut, "gone"))
        }
    }
    for (language, text) in [(Json, "{\"items\":[{}"), (Json, "{} "), (Json, ""), (Yaml, "a: 1\n"), (Yaml, "a: 1\n---\n")] {
        let failed = read_from(language, text.as_bytes().chain(Broken), &mut Kept::default(), &LIMITS);
        let Err(ReadError::Io(error)) = failed else { panic!("{text:?} gave {failed:?}") };
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::TimedOut, "gone".to_owned()));
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(|number| json!(f64::from(number))),
        "[a-z\"\\\\\n é—{}\\[\\],:-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof!["[a-z]{0,3}", Just("items".to_owned()), Just("kind".to_owned())];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What the resources of whole documents are, by the words of the module's page.
fn expected(documents: &[Value]) -> Kept {
    let mut kept = Kept::default();
    for (number, document) in documents.iter().filter(|document| !document.is_null()).enumerate() {
        let mut list = |items: &[Value], form, fields| {
            kept.resources.extend(items.iter().cloned().enumerate().map(|(item, value)| (number, Some(item), value)));
            kept.envelopes.push((number, form, fields));
        };
        match (document, document.get("items")) {
            (Value::Array(items), _) => list(items, Form::List, json!({})),
            (Value::Object(fields), Some(Value::Array(items))) => {
                let mut fields = fields.clone();
                fields.remove("items");
                list(items, Form::Items, Value::Object(fields));
            }
            _ => kept.resources.push((number, None, document.clone())),
        }
    }
    kept
}

const WIDE: Limits = Limits { resource_bytes_max: 100_000, values_max: 1000, document_bytes_max: 100_000 };

proptest! {
    #[test]
    fn pieces_of_a_text_are_what_the_whole_is(
        documents in proptest::collection::vec(values(), 0..4),
        is_pretty: bool,
    ) {
        let text = |value: &Value| if is_pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let json: String = documents.iter().map(|document| text(document).unwrap() + "\n").collect();
        let whole: Vec<Value> = serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect();
        let mut kept = Kept::default();
        prop_assert_eq!(read_json(json.as_bytes(), &mut kept, &WIDE).unwrap(), documents.iter().filter(|d| !d.is_null()).count());
        prop_assert_eq!(kept, expected(&whole));
        let yaml: String = documents.iter().map(|document| format!("---\n{}", serde_norway::to_string(document).unwrap())).collect();
        let mut kept = Kept::default();
        read_yaml(yaml.as_bytes(), &mut kept, &WIDE).unwrap();
        prop_assert_eq!(kept, expected(&documents));
    }

    /// Where a YAML text is good as a whole, cutting it changes nothing; and no text makes a reader panic.
    #[test]
    fn cuts_change_nothing(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "---", "--- ", "--- a", "--- |", "--- >-", "--- \"", "---a", "...", "... # x", "..", "", "  ", "# x", "...\n%YAML 1.2", "a: 1",
                "b: |", "  x", "  ---", "- a", "- b: \"", "\"", "'", "items:", "[", "]", "{a: 1}", "&a x", "*a", "\u{feff}",
            ]),
            0..12,
        ),
        ending in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        use serde::de::Deserialize as _;
        let text = lines.join(ending);
        let whole: Result<Vec<Value>, _> =
            serde_norway::Deserializer::from_str(&text).map(serde_norway::Value::deserialize).map(|value| {
                value.map_err(|error| error.to_string()).and_then(|value| serde_json::to_value(value).map_err(|error| error.to_string()))
            }).collect();
        let mut kept = Kept::default();
        let read = read_yaml(text.as_bytes(), &mut kept, &WIDE);
        if let Ok(whole) = whole {
            prop_assert!(read.is_ok(), "{:?} gave {:?}", text, read);
            prop_assert_eq!(kept, expected(&whole), "{:?}", text);
        }
        let mut pieces = Kept::default();
        let again = read_yaml(Dribble { text: text.as_bytes(), given: &mut 0 }, &mut pieces, &WIDE);
        prop_assert_eq!(again.is_ok(), read_yaml(text.as_bytes(), &mut Kept::default(), &WIDE).is_ok());
        let _ = read_json(text.as_bytes(), &mut Kept::default(), &WIDE).is_ok();
    }

    #[test]
    fn any_bytes_are_an_error_at_worst(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for language in [Json, Yaml] {
            let read = |kept: &mut Kept| format!("{:?}", read_from(language, bytes.as_slice(), kept, &WIDE));
            let mut first = Kept::default();
            let told = read(&mut first);
            prop_assert_eq!(read(&mut Kept::default()), told);
        }
    }
}

#[test]
fn a_mark_alone_on_a_line_is_no_content() {
    let text = "---\n...\n%YAML 1.2\n\u{feff}\n---\na: 1\n";
    assert_eq!(read(Yaml, text).map(|kept| kept.resources), Ok(vec![(0, None, json!({"a": 1}))]));
}

#[test]
fn lists_in_lists_are_bounded() {
    // Hours of work for the parser, were it let.
    let hidden = |before: &str| format!("{before}{}", "{a: [".repeat(20_000));
    for text in [
        "{a: ".repeat(20_000),
        "[".repeat(90_000),
        "{\"}\": ".repeat(12_000),
        format!("{}{}", "{a: ".repeat(9_000), "b, ".repeat(9_000)),
        hidden("a: |\n b: [\n\n#\nc: "),
        hidden("a: ']' #]\nb: "),
        hidden("a: \"\\\"]\"\n"),
        hidden("a: b\n  c\nd: "),
        hidden("- - |1\n  ]\n- "),
        hidden("a: >\n\n\n'\n'b': "),
        hidden("? |\n  '\n: "),
        hidden("é: !<]> &x\n  "),
        "a: [\n\"]\", ']', #]\n!<]> b, ".repeat(200),
    ] {
        let limits = Limits { document_bytes_max: 1_000_000, ..WIDE };
        let read = read_from(Yaml, text.as_bytes(), &mut Kept::default(), &limits);
        let Err(ReadError::TooLarge { document: 0, message }) = read else { panic!("{:.40} gave {read:?}", text) };
        assert!(message.contains("more than 128 lists and mappings in brackets in one another at line "), "{message}");
    }
    let text = format!("--- a\n--- |\n  [\n---\n- {}", "[".repeat(129));
    let read = read_from(Yaml, text.as_bytes(), &mut Kept::default(), &WIDE);
    let Err(ReadError::TooLarge { document: 2, message }) = read else { panic!("gave {read:?}") };
    assert!(message.ends_with(" at line 5"), "{message}");
}

/// As `kubectl get -o yaml` prints it, the JSON of its last application in an annotation.
#[test]
fn brackets_in_texts_and_beside_one_another_are_not_bounded() {
    let limits = Limits { document_bytes_max: 16 * 1024 * 1024, ..WIDE };
    let applied = "{\"spec\":{\"rules\":[{\"matches\":[{\"path\":{\"value\":\"/[\"}}],\"backendRefs\":[{\"name\":\"a\"}]}]}}";
    let quoted = format!("'{applied}'");
    let in_double = format!("{applied:?}");
    let literal = format!("|\n        {applied}");
    for annotation in
        [literal, quoted, in_double, "\n        it's [not {one # [{".to_owned(), "{a: [{b: []}], c: {}} # {".to_owned()]
    {
        let one = format!("- kind: HTTPRoute\n  metadata:\n    annotations:\n      applied: {annotation}\n    name: a\n");
        let count = 4_000;
        let mut kept = Kept::default();
        let read = read_from(Yaml, format!("items:\n{}kind: List\n", one.repeat(count)).as_bytes(), &mut kept, &limits);
        assert!(read.is_ok() && kept.resources.len() == count, "{annotation}: {read:?}");
    }
}

/// The values of a text; none where a parser refuses it. Brackets in strings are told as `x`.
fn parsed(text: &str) -> Option<String> {
    use serde::de::Deserialize as _;
    let values = serde_norway::Deserializer::from_str(text).map(serde_norway::Value::deserialize);
    let told = values.map(|value| value.and_then(|value| serde_norway::to_string(&value).map(|_| value)));
    let values: Vec<serde_norway::Value> = told.collect::<Result<_, _>>().ok()?;
    Some(values.iter().map(|value| format!("{};", masked(value))).collect())
}

fn masked(value: &serde_norway::Value) -> String {
    use serde_norway::Value;
    match value {
        Value::String(text) => format!("{:?}", text.replace(['[', '{'], "x")),
        Value::Sequence(items) => format!("[{}]", items.iter().map(|item| masked(item) + ",").collect::<String>()),
        Value::Mapping(fields) => {
            let field = |(key, value)| format!("{}: {},", masked(key), masked(value));
            format!("{{{}}}", fields.iter().map(field).collect::<String>())
        }
        Value::Tagged(tagged) => format!("{} {}", tagged.tag.to_string().replace('[', "x"), masked(&tagged.value)),
        other => format!("{other:?}"),
    }
}

const PIECES: [&str; 56] = [
    "[",
    "{",
    "]",
    "}",
    "[",
    "{",
    "]",
    "}",
    ", ",
    ",",
    ": ",
    ":",
    "? ",
    "- ",
    "-",
    "a",
    "b c",
    "é",
    "1",
    "\"",
    "\"",
    "'",
    "'",
    "''",
    "\\",
    "\\\"",
    "#",
    " #",
    "|\n",
    "|-\n ",
    ">2\n   ",
    ">+1 # x\n",
    "&a ",
    "*a",
    "!t ",
    "!<t[,]> ",
    "!",
    "\t",
    " ",
    "  ",
    "\n",
    "\n  ",
    "\n    ",
    "\n  - ",
    "\n- ",
    "\n---\n",
    "\n...\n",
    "\n--- ",
    "\r",
    "\r\n",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "%YAML 1.2\n",
    "k: ",
    "\n",
];

const LINES: [&str; 28] = [
    "k: [a, {b: c}]",
    "- {a: \"]\"}",
    "l: |",
    "m: >-",
    "n: |2",
    "- |+",
    "{[",
    "]}",
    "'it''s [': x",
    "\"{\\\"[\": 'y",
    "z'",
    "[a, b]: c",
    "o: b [c",
    "# [",
    "p: !t {q: [1]} #{",
    "- - - |",
    "? [a",
    ", b]",
    ": {c: d}",
    "é: - [",
    "\"a",
    "{\"",
    "- a: [",
    "- ]",
    "",
    "r: &x [*x]",
    "d: e: [",
    "s:",
];

/// A text of pieces, or of lines.
fn texts() -> impl Strategy<Value = String> {
    let pieces = proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..14);
    let lines = proptest::collection::vec((0..5_usize, proptest::sample::select(LINES.to_vec())), 0..7);
    let lines = lines.prop_map(|lines| lines.iter().map(|(indent, line)| format!("{}{line}\n", "  ".repeat(*indent))).collect());
    prop_oneof![pieces.prop_map(|pieces| pieces.concat()), lines]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// A bracket that is part of a text can be another letter, and no other can.
    #[test]
    fn brackets_are_told_from_texts_as_the_parser_does(text in texts()) {
        let Some(whole) = parsed(&text) else { return Ok(()) };
        let openings = openings(text.as_bytes());
        let replaced = |is_replaced: &dyn Fn(usize) -> bool| {
            let letter = |(at, letter)| if matches!(letter, '[' | '{') && is_replaced(at) { 'x' } else { letter };
            parsed(&text.char_indices().map(letter).collect::<String>())
        };
        prop_assert_eq!(replaced(&|at| !openings.contains(&at)), Some(whole.clone()), "{:?} has {:?}", &text, &openings);
        for opening in &openings {
            prop_assert_ne!(replaced(&|at| at == *opening), Some(whole.clone()), "{:?} has {:?}", &text, &openings);
        }
    }
}
