use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::task::{Format, read_rows};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tasks/parquet").join(name)
}

fn error(name: &str) -> String {
    let error = read_rows(&golden(name), usize::MAX).expect_err("an error").to_string();
    error.replace(&format!("{}/", golden("").parent().expect("a folder").join("parquet").display()), "")
}

/// `rows` of a file with these bytes.
fn written(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d.parquet");
    fs::write(&path, bytes).expect("a file");
    rows(&path, usize::MAX).map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn rows_are_those_of_json_lines() {
    let found = read_rows(&golden("rows.parquet"), usize::MAX).expect("rows");
    let expected = read_rows(&golden("rows.jsonl"), usize::MAX).expect("rows");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.place().line, expected.place().line);
        for field in
            ["sentence", "label", "score", "flag", "answers", "answers.text", "answers.answer_start", "messages"]
        {
            assert_eq!(found.get(field), expected.get(field), "{field}");
        }
    }
    let chat = Format::Chat.task().example(&found[0]).expect("a conversation");
    assert_eq!(chat.input, Format::Chat.task().example(&expected[0]).expect("a conversation").input);
    assert_eq!(read_rows(&golden("rows.parquet"), 1).expect("rows").len(), 1);
}

#[test]
fn values_and_compressions_that_are_not_read_name_row_column_and_fix() {
    assert_eq!(
        error("bytes.parquet"),
        "bytes.parquet:2: the column \"image\" holds bytes that are no text; expected texts, numbers, and lists and \
         structures of them: leave the column out"
    );
    assert_eq!(
        error("zstd.parquet"),
        "zstd.parquet: the column \"text\" is compressed by zstd; expected snappy, gzip, brotli, lz4 or none: write the \
         file again with one of them"
    );
    let missing = read_rows(&golden("rows.parquet"), 3).expect("rows")[2].text("title").expect_err("no title");
    assert!(missing.to_string().contains("rows.parquet:3: the fields are"), "{missing}");
}

#[test]
fn files_that_end_wrong_are_refused() {
    assert!(written(b"PAR1").expect_err("an error").ends_with("4 bytes are too few for one"));
    let json = written(b"{\"text\": 1}\n").expect_err("an error");
    assert_eq!(json, "d.parquet: not a Parquet file that can be read: it ends with \" 1}\\n\", expected \"PAR1\"");
    let long = [&[0; 8][..], &(MAX_FOOTER + 1).to_le_bytes(), MAGIC].concat();
    assert!(written(&long).expect_err("an error").contains("bytes describe it, expected at most"));
    let whole = fs::read(golden("rows.parquet")).expect("a file");
    assert!(written(&whole[1..]).is_err());
}

/// A file whose description has one column within another, so many times, in Thrift's compact protocol.
fn nested(depth: usize) -> Vec<u8> {
    let mut footer = vec![0x15, 0x04]; // Field 1, version: 2.
    footer.extend([0x19, 0xfc]); // Field 2, schema: a list of structures, its length behind.
    let mut length = depth + 2;
    while length >= 0x80 {
        footer.push(length as u8 | 0x80);
        length >>= 7;
    }
    footer.push(length as u8);
    let group = [0x35, 0x00, 0x18, 0x01, b'a', 0x15, 0x02, 0x00]; // Required, named `a`, with one child.
    footer.extend([0x48, 0x01, b'r', 0x15, 0x02, 0x00]); // The root, named `r`, with one child.
    (0..depth).for_each(|_| footer.extend(group));
    footer.extend([0x15, 0x02, 0x25, 0x00, 0x18, 0x01, b'a', 0x00]); // A required 32-bit integer named `a`.
    footer.extend([0x16, 0x00, 0x19, 0x0c, 0x00]); // Field 3, rows: 0; field 4, row groups: none.
    let length = u32::try_from(footer.len()).expect("a description");
    [MAGIC, &footer[..], &length.to_le_bytes(), MAGIC].concat()
}

#[test]
fn columns_nested_as_deep_as_a_description_allows_are_refused() {
    assert_eq!(written(&nested(MAX_NESTING - 1)).map(|rows| rows.len()), Ok(0));
    let deepest = MAX_FOOTER as usize / 8 - 4;
    for depth in [MAX_NESTING, deepest] {
        let error = written(&nested(depth)).expect_err("too deep");
        assert!(error.contains(&format!("column 1 is nested deeper than {MAX_NESTING}")), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_are_refused_or_read(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = fs::read(golden("rows.parquet")).expect("a file");
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = written(&bytes);
    }
}
