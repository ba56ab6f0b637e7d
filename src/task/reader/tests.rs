use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// `read` of a file with these bytes; errors without the temporary directory.
fn with<T>(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> Result<T, ReadError>) -> Result<T, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    fs::write(&path, bytes).expect("a file");
    read(&path).map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

fn read(name: &str, bytes: &[u8]) -> Result<Vec<Text>, String> {
    with(name, bytes, |path| read_texts(path, 2))
}

fn rows(name: &str, bytes: &[u8]) -> Result<Vec<Row>, String> {
    with(name, bytes, |path| read_rows(path, usize::MAX))
}

#[test]
fn lines_are_texts_up_to_the_limit_and_plain_files_are_one() {
    let jsonl = b"{\"text\": \"a\\nb\", \"label\": 1}\n\n{\"text\": \"c\"}\r\n{broken";
    let texts = read("data.jsonl", jsonl).expect("two texts");
    assert_eq!(texts, [Text { line: 1, text: "a\nb".to_owned() }, Text { line: 3, text: "c".to_owned() }]);
    assert_eq!(read("data.txt", b"a\nb").expect("a text"), [Text { line: 1, text: "a\nb".to_owned() }]);
    assert_eq!(read("data.csv", b"text\nx\n").expect("a text"), [Text { line: 2, text: "x".to_owned() }]);
}

#[test]
fn errors_name_file_line_and_column() {
    let error = |name, bytes| read(name, bytes).expect_err("an error");
    assert_eq!(error("d.jsonl", b"{\"text\": \"a\"}\n{\"text\" 1}"), "d.jsonl:2:9: not a JSON object: expected `:`");
    assert_eq!(
        error("d.jsonl", b"\n{\"sentence\": \"a\"}"),
        "d.jsonl:2: the fields are [\"sentence\"]; expected the field \"text\" with a text"
    );
    assert_eq!(error("d.jsonl", b"{\"text\": 3}"), "d.jsonl:1: \"text\" is 3; expected the field \"text\" with a text");
    assert_eq!(
        error("d.jsonl", b"{\"text\": null}"),
        "d.jsonl:1: \"text\" is null; expected the field \"text\" with a text"
    );
    assert_eq!(error("d.txt", b"ab\nc\xff"), "d.txt:2: byte 2 of the line is not UTF-8");
    assert_eq!(error("d.csv", b"text\nc\xff"), "d.csv:2: byte 2 of the line is not UTF-8");
    assert_eq!(error("d.jsonl", b"\n \n"), "d.jsonl has no text and no row");
    assert_eq!(error("d.csv", b"text\n"), "d.csv has no text and no row");
    assert!(matches!(read_texts(Path::new("/none"), 1), Err(ReadError::Read { .. })));
}

#[test]
fn the_columns_of_a_csv_file_are_fields_and_errors_name_the_line_a_row_starts_on() {
    let bytes = b"\xef\xbb\xbftext,label\r\n\"one, \"\"two\"\"\nthree\",1\n\nfour,0\n";
    let both = rows("d.csv", bytes).expect("two rows");
    let found: Vec<_> = both.iter().map(|row| (row.place().line, row.text("text"), row.text("label"))).collect();
    assert_eq!(found.len(), 2);
    assert!(matches!(found[0], (2, Ok("one, \"two\"\nthree"), Ok("1"))), "{found:?}");
    assert!(matches!(found[1], (5, Ok("four"), Ok("0"))), "{found:?}");
    let error = |bytes| rows("d.csv", bytes).expect_err("an error");
    assert_eq!(
        error(b"a,b\n\"x\ny\",1\n1,2,3\n"),
        "d.csv:4: 3 fields, expected 2 as in the first line; put quotes around a field with a comma or a line break, \
         and double the quotes inside"
    );
    assert_eq!(
        error(b"a,a\n"),
        "d.csv:1: column 2 is named \"a\"; the first line must name every column, each by its own name"
    );
    assert!(error(b"a,,b\n").starts_with("d.csv:1: column 2 is named \"\""));
}

#[test]
fn dots_lead_into_objects_and_lists_of_texts_may_be_a_single_one() {
    let row = Row::from_json(json!({"answers": {"text": ["a", "b"], "none": []}, "one": "c", "mixed": ["a", 1]}));
    assert_eq!(row.texts("answers.text").expect("texts"), ["a", "b"]);
    assert_eq!(row.texts("one").expect("texts"), ["c"]);
    for (field, found) in [
        ("mixed", "\"mixed\" is a list of 2"),
        ("answers.none", "\"answers.none\" is a list of 0"),
        ("answers", "\"answers\" is an object"),
        ("answers.start", "the fields are [\"answers\", \"mixed\", \"one\"]"),
    ] {
        let error = row.texts(field).expect_err("no texts").to_string();
        assert_eq!(
            error,
            format!("data.jsonl:7: {found}; expected the field {field:?} with a text or a list of texts")
        );
    }
}

#[test]
fn other_files_are_refused() {
    assert!(rows("d.txt", b"").expect_err("an error").starts_with("d.txt is neither .jsonl nor .csv nor .parquet"));
    #[cfg(not(feature = "parquet"))]
    assert!(rows("d.parquet", b"").expect_err("an error").ends_with("`--features parquet`, or convert it to .jsonl"));
}

#[test]
fn a_directory_has_a_training_file_and_never_two_of_a_kind() {
    let dir = tempfile::tempdir().expect("a directory");
    let put = |name: &str| fs::write(dir.path().join(name), "").expect("a file");
    assert!(matches!(DataDirectory::open(dir.path()), Err(ReadError::NoSplit { split: "train", .. })));
    put("train.jsonl");
    put("test.csv");
    let found = DataDirectory::open(dir.path()).expect("a directory of data");
    assert_eq!((found.valid, found.test), (None, Some(dir.path().join("test.csv"))));
    put("train.csv");
    assert!(matches!(DataDirectory::open(dir.path()), Err(ReadError::TwoSplits { split: "train", .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in ["d.jsonl", "d.csv", "d.txt"] {
            let _ = with(name, &bytes, |path| read_texts(path, 3));
        }
    }

    #[test]
    fn what_is_written_as_json_or_csv_is_read_back(texts in prop::collection::vec("[^\\r]{0,20}", 1..8)) {
        let lines: String = texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
        let quoted: String = texts.iter().map(|text| format!("\"{}\"\n", text.replace('"', "\"\""))).collect();
        for (name, bytes) in [("d.jsonl", lines), ("d.csv", format!("text\n{quoted}"))] {
            let rows = rows(name, bytes.as_bytes()).expect("rows");
            let read: Vec<&str> = rows.iter().map(|row| row.text("text").expect("a text")).collect();
            prop_assert_eq!(&read, &texts, "{}", name);
            prop_assert!(rows.iter().all(|row| matches!(row.get("text"), Some(Value::String(_)))));
        }
    }
}
