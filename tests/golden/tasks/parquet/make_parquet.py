"""Writes the Parquet files of this folder, and the rows of `rows.parquet` as JSON lines.

    pip install pyarrow==26.0.1
    python make_parquet.py

`rows.parquet` has the columns that data sets have, in two row groups and several compressions; the others are refused.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent

ROWS = [
    {
        "sentence": "it 's a charming and often affecting journey . ",
        "label": 1,
        "score": 0.5,
        "flag": True,
        "answers": {"text": ["Zürich", "in Zürich"], "answer_start": [3, 0]},
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes\n"}],
    },
    {
        "sentence": "unflinchingly bleak and desperate ",
        "label": 0,
        "score": None,
        "flag": False,
        "answers": {"text": [], "answer_start": []},
        "messages": [],
    },
    {"sentence": "", "label": -1, "score": -2.25, "flag": None, "answers": None, "messages": None},
]

TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("sentence", pa.string()),
        ("label", pa.int64()),
        ("score", pa.float32()),
        ("flag", pa.bool_()),
        ("answers", pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])),
        ("messages", pa.list_(TURN)),
    ]
)


def write(name, table, **options):
    pq.write_table(table, HERE / name, **options)


def main():
    rows = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    compression = {"sentence": "snappy", "label": "gzip", "score": "brotli", "flag": "lz4", "answers.text.list.element": "snappy"}
    write("rows.parquet", rows, row_group_size=2, compression=compression)
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    text = pa.table({"text": ["a", "b"]})
    write("zstd.parquet", text, compression="zstd")
    write("bytes.parquet", pa.table({"text": ["a", "b"], "image": pa.array([b"ok", b"\xff\xd8"], pa.binary())}))


main()
